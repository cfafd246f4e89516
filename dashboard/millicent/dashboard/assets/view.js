// The menu of a view: what is chosen in it goes into the address, and what is saved is an address.
(() => {
  const dash = window.dash_clientside;
  const menu = () => document.getElementById("views");

  // The menu is asked for when it opens, and when what its button tells has changed.
  let told = "";
  const ask = (path, search) => dash.set_props("view-asked", { data: { path, search, at: Date.now() } });
  const moved = (path, search) => {
    const params = new URLSearchParams(search);
    const now = JSON.stringify([path, params.get("cur"), params.get("tz")]);
    if (!menu() || (now === told && !menu().open)) return;
    told = now;
    ask(path, search);
  };

  // A page that was opened at its plain address shows the view that it opens with, once.
  let plain = false;
  const entered = (search) => { plain = search === ""; told = ""; };
  const opens = (view) => {
    if (!plain || !view || view.path !== location.pathname || location.search !== "") return;
    plain = false;
    history.replaceState(null, "", view.path + view.search);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  const put = (changes) => {
    plain = false;
    const search = dash.millicent.changed(changes);
    history.pushState(null, "", location.pathname + search);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  const zone = (form, name) => {
    const field = form.elements.tz;
    try {
      new Intl.DateTimeFormat("en", { timeZone: name });
      field.setCustomValidity("");
    } catch {
      field.setCustomValidity("No such time zone: write one such as Europe/Berlin");
      field.reportValidity();
      return;
    }
    put({ tz: name === form.dataset.usual ? null : name });
  };

  const dates = (form) => {
    const [from, to] = [form.elements.from.value, form.elements.to.value].sort();
    if (from && to) put({ p: `${from}..${to}` });
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset?.view === "dates") dates(form);
    if (form.dataset?.view === "zone") zone(form, form.elements.tz.value.trim());
  });

  document.addEventListener("input", (event) => { if (event.target.name === "tz") event.target.setCustomValidity(""); });

  document.addEventListener("click", (event) => {
    const setting = event.target.closest?.("[data-set]");
    if (setting) put(JSON.parse(setting.dataset.set));
    const mine = event.target.closest?.("[data-action=my-zone]");
    if (mine) zone(document.querySelector("form[data-view=zone]"), Intl.DateTimeFormat().resolvedOptions().timeZone);
    const used = event.target.closest?.("[data-used]");
    if (used) dash.set_props("view-do", { data: { do: "view-used", told: { id: used.dataset.used }, at: Date.now() } });
  });

  // `toggle` does not bubble, so it is caught on its way down.
  document.addEventListener("toggle", (event) => {
    if (event.target.id !== "views" || !event.target.open) return;
    ask(location.pathname, location.search);
  }, true);

  document.addEventListener("focusin", (event) => {
    const list = event.target.list;
    if (!list?.id.startsWith("time-zones") || list.childElementCount) return;
    for (const name of ["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])]) list.append(new Option(name, name));
  });

  const again = () => { if (menu()) ask(location.pathname, location.search); };

  dash.viewing = { moved, entered, opens, again };
})();
