// The address is the state of a page. Controls write it, links are addresses, and the server reads it.
(() => {
  const VERSION = "1";
  const LOOK = ["by", "and", "as", "in", "g", "top", "call", "q", "open", "order", "at"]; // how a chart is cut, what is searched or open; everything else is the scope of all numbers
  const PASSING = ["after", "call"]; // what a place in a list means only while the list is the same
  const CARRIED = ["p", "basis", "cur", "tz", "team", "model", "accelerator", "environment", "engine", "precision", "region", "deployment"]; // what goes along from page to page
  const PATHS = { chargeback: "/teams", limits: "/budgets" }; // of pages whose address is not what the ids of their parts begin with
  const dash = window.dash_clientside = window.dash_clientside || {};

  const read = (params, controls) => controls.map(([key, , usual]) => (usual === null ? params.getAll(key) : params.get(key) ?? usual));

  const write = (values, controls) => {
    const pairs = controls.flatMap(([key, , usual], at) => {
      const value = values[at];
      if (usual === null) return (value ?? []).map((one) => [key, one]);
      return value === usual || value == null ? [] : [[key, value]];
    });
    return pairs.length ? "?" + [["v", VERSION], ...pairs].map((pair) => pair.map(encodeURIComponent).join("=")).join("&") : "";
  };

  const only = (values, controls, wanted) => write(values.map((value, at) => (wanted(controls[at][0]) ? value : controls[at][2])), controls);

  const many = (controls) => controls.filter(([, , usual]) => usual === null);

  // A dropdown forgets values that it does not offer, so both are set at once, and what is chosen is always offered.
  // `set_props` is outside the graph of callbacks, where choices that follow from the address would be a cycle.
  // The list is searched by an index of every part of every name, kept in plain objects: a part that all objects have
  // already would be written into all of them. So such a part is parted by a character of no width.
  const apart = (text) => text.replace(/__proto__|constructor/gi, (word) => `${word.slice(0, 3)}\u200b${word.slice(3)}`);
  const together = (text) => text.replace(/(__p)\u200b(roto__)|(con)\u200b(structor)/gi, "$1$2$3$4");
  let choices = {};
  const fill = (controls) => {
    const params = new URLSearchParams(location.search);
    for (const [key, id] of many(controls)) {
      if (!document.getElementById(id)) continue; // another page has come in between
      const value = params.getAll(key);
      const found = choices[key] ?? [];
      const known = new Set(found.map((choice) => choice.value));
      const absent = value.filter((one) => !known.has(one)).map((one) => ({ value: one, label: one || "Unknown" }));
      const options = [...found, ...absent].map(({ value: one, label, search = `${one} ${label}` }) => ({ value: apart(one), label: apart(label), search: apart(search) }));
      dash.set_props(id, { options, value: value.map(apart) });
    }
  };

  const offer = (fresh, controls) => {
    choices = fresh ?? {};
    fill(controls);
  };

  // One callback of a page owns the address, the controls and what the server is asked, so that they cannot disagree.
  // What a person did last wins (a control, a bar of the chart); all else is as the address says.
  let ruling = []; // what the address of the page in sight may tell
  const changed = (changes) => {
    const params = new URLSearchParams(location.search);
    for (const [key, value] of Object.entries(changes)) value === null ? params.delete(key) : params.set(key, value);
    for (const key of PASSING) params.delete(key);
    return write(read(params, ruling), ruling);
  };

  const steer = (path, params, values, controls, scope, look) => {
    if (location.pathname !== path) throw dash.PreventUpdate; // a page that is about to go does not answer for the next
    const causes = dash.callback_context.triggered.map((cause) => cause.prop_id);
    if ((params.get("v") ?? VERSION) !== VERSION) params = new URLSearchParams();
    const now = read(params, controls);
    const shown = controls.map(([, id], at) => [id, at]).filter(([id]) => id !== null);
    const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    const held = shown.map(([id, at], place) => [id, at, Array.isArray(values[place]) ? values[place].map(together) : values[place]]);
    const moved = scope == null ? [] : held.filter(([id, at, value]) => causes.includes(`${id}.value`) && !same(value, now[at]));
    for (const [, at, value] of moved) now[at] = value;
    if (moved.length) controls.forEach(([key, , usual], at) => { if (PASSING.includes(key)) now[at] = usual; });
    const address = write(now, controls);
    ruling = controls;
    setTimeout(() => dash.viewing?.moved(path, address));
    const next = { scope: only(now, controls, (key) => !LOOK.includes(key)), look: only(now, controls, (key) => LOOK.includes(key)) };
    if (next.scope !== scope) setTimeout(() => fill(controls));
    const renew = (fresh, old) => (fresh === old ? dash.no_update : fresh);
    const single = shown.map(([, at], place) => [controls[at][2], now[at], values[place]]).filter(([usual]) => usual !== null);
    return [renew(address, location.search), renew(next.scope, scope), renew(next.look, look), ...single.map(([, value, old]) => renew(value, old))];
  };

  const overview = (_search, click, ...rest) => {
    const [controls, figure, scope, look] = rest.slice(-4);
    const clicked = dash.callback_context.triggered.some((cause) => cause.prop_id === "chart.clickData");
    const hit = clicked && click?.points?.map((point) => figure.data[point.curveNumber]?.meta?.href).find(Boolean);
    return steer("/", new URLSearchParams(hit || location.search), rest, controls, scope, look);
  };

  const steered = (_search, ...rest) => {
    const name = dash.callback_context.inputs_list[0].id.replace(/-url$/, "");
    return steer(PATHS[name] ?? `/${name}`, new URLSearchParams(location.search), rest, ...rest.slice(-3));
  };

  // What is searched and what is open are asked for apart, so that neither is answered again when the other changes.
  const part = (key) => (look, was) => { const now = new URLSearchParams(look ?? "").get(key) ?? ""; return now === was ? dash.no_update : now; };

  // On a phone the navigation is folded; it folds again when a page was chosen.
  const fold = (open) => {
    const nav = document.querySelector(".sidebar");
    nav?.classList.toggle("unfolded", open);
    nav?.querySelector("[data-action=menu]")?.setAttribute("aria-expanded", String(open));
  };

  // Which page stands in the frame: all of them came with the first answer.
  const route = (path, pages) => {
    const [title, page] = pages[path] ?? pages["/"];
    fold(false);
    document.title = title;
    dash.viewing?.entered(location.search);
    return page;
  };

  // New calls show up by themselves, unless nobody looks, somebody is in the middle of something, or the last answer is
  // still on its way: asked again before it comes, it would never be shown.
  const tick = (count) => (document.hidden || document.querySelector("[data-dash-is-loading=true], #welcome, details.pop[open], [data-state=open], .hoverlayer > *, .drawer section, .calls :focus-visible") ? dash.no_update : count);

  const element = (type, children, props = {}) => ({ namespace: "dash_html_components", type, props: { children, ...props } });

  // The chart's own numbers as a table, built only when somebody asks for it.
  const table = (clicks, figure) => {
    if (!clicks || clicks % 2 === 0) return null;
    const layers = figure.data.filter((trace) => trace.meta?.label);
    if (!layers.length) return null;
    const told = layers.map((layer) => new Map(layer.x.map((day, at) => [day, layer.meta.texts?.[at] ?? layer.customdata[at]])));
    const days = [...new Set(layers.flatMap((layer) => layer.x))].sort(); // a layer may end before another, as the past does
    const head = element("Thead", element("Tr", [element("Th", "Day", { scope: "col" }), ...layers.map((layer) => element("Th", layer.meta.label, { scope: "col" }))]));
    const rows = days.map((day) => element("Tr", [element("Th", day, { scope: "row" }), ...told.map((texts) => element("Td", texts.get(day) ?? ""))]));
    return element("Table", [head, element("Tbody", rows)], { className: "figures" });
  };

  // Focus goes into a call that opens, and back to its row when it closes.
  let opened = null;
  const drawer = (_content, look) => { setTimeout(() => {
    const call = new URLSearchParams(look ?? "").get("call");
    for (const row of document.querySelectorAll(".calls tr")) row.classList.toggle("open", Boolean(call) && row.querySelector("th a")?.id === `call-${call}`);
    if (call === opened) return;
    if (call) document.querySelector(".drawer section")?.focus({ preventScroll: true });
    else document.getElementById(`call-${opened}`)?.focus({ preventScroll: true });
    opened = call;
  }); };

  // The same for what opens on the pages of prices and of own hardware. What opened it is found by where it leads, and by
  // which of several that was: the element itself may have been drawn anew.
  let shown = "", from = "", pressed = 0, next = "";
  const openers = (text) => [...document.querySelectorAll(`[data-opens="${CSS.escape(text)}"]`)].filter((link) => text && !link.closest(".drawer"));
  const shelf = (_content, open) => { setTimeout(() => {
    if ((open ?? "") === shown) return;
    const left = shown;
    shown = open ?? "";
    const [here, there] = [openers(left), openers(from)];
    for (const row of document.querySelectorAll(".board tr.open")) row.classList.remove("open");
    if (!left) from = shown;
    const rows = shown ? [...openers(shown), ...openers(from)].map((link) => link.closest("tr")).filter(Boolean) : [];
    rows[0]?.classList.add("open");
    const after = next && [...document.querySelectorAll(next)];
    const back = after || (here.length ? here : there);
    (shown ? document.querySelector(".drawer section") : back[pressed] ?? back[0])?.focus({ preventScroll: true });
    next = "";
  }); };

  // The hour of the week that is listed; what it lists comes into sight.
  let listed = "";
  const marked = (_content, at) => { setTimeout(() => {
    for (const cell of document.querySelectorAll(".hourly a")) at && cell.dataset.at === at ? cell.setAttribute("aria-current", "true") : cell.removeAttribute("aria-current");
    if ((at ?? "") !== listed && at) document.getElementById("wasteful")?.scrollIntoView({ block: "nearest" });
    listed = at ?? "";
  }); };

  // On a narrow screen the budget that was chosen comes into sight once it is there.
  let budget = null;
  const budgeted = () => { setTimeout(() => {
    const open = document.querySelector("#one-body [data-budget]")?.dataset.budget;
    if (open && budget !== null && budget !== open && innerWidth <= 1240 && new URLSearchParams(location.search).get("budget") === open) document.getElementById("one")?.scrollIntoView();
    budget = open ?? budget;
  }); };

  const pulse = (count) => (document.hidden || document.querySelector(".drawer details[open], .drawer :is(input, select):focus, #alerts-drawer[data-dash-is-loading=true]") ? dash.no_update : count);

  const beat = (count) => (document.querySelector("#prices-run[data-dash-is-loading=true]") ? dash.no_update : count);

  // After a change: what was pressed can be pressed again, and what follows is shown.
  const done = (changed) => {
    for (const button of document.querySelectorAll("[data-do][aria-busy]")) {
      button.disabled = false;
      button.removeAttribute("aria-busy");
      const pop = changed?.close ? button.closest("details.pop") : null;
      pop?.removeAttribute("open");
      if (document.activeElement === document.body) (pop?.querySelector("summary") ?? button).focus({ preventScroll: true });
    }
    setTimeout(() => document.querySelector(".declaring .effect > *")?.scrollIntoView({ block: "nearest" }));
    next = changed?.focus ?? ""; // where what opened the drawer is about to go
    if (changed?.go) { history.pushState(null, "", location.pathname + changed.go); dispatchEvent(new PopStateEvent("popstate")); }
  };

  // How many alerts need somebody, beside the page's name in the navigation of every page.
  const counted = (count) => {
    const root = document.documentElement;
    root.toggleAttribute("data-alerts", count > 0);
    root.style.setProperty("--alerts", JSON.stringify(count > 99 ? "99+" : String(count ?? 0)));
  };

  // Which way to send the first call is in sight.
  dash.welcome = { shows: (way) => { const ways = document.getElementById("welcome-ways"); if (ways && way) ways.dataset.way = way; } };

  dash.millicent = { changed, overview, steered, searched: part("q"), sorted: part("order"), unfolded: part("open"), unit: part("in"), manner: part("as"), slot: part("at"), budgeted, marked, route, offer, tick, table, drawer, shelf, beat, pulse, counted, done };

  // A button asks the server to do something, with what its form holds; a form tells what it holds while it is filled in.
  const held = (form) => {
    const told = {}; // what is ticked of a list goes by one name, each on a line of its own
    for (const [name, value] of form ? new FormData(form) : []) if (value !== "") told[name] = name in told ? `${told[name]}\n${value}` : value;
    return told;
  };

  const act = (button) => {
    const here = button.dataset.here === undefined ? {} : { path: location.pathname, search: location.search };
    dash.set_props(button.dataset.to ?? "prices-do", { data: { do: button.dataset.do, told: { ...here, ...JSON.parse(button.dataset.told ?? "{}"), ...held(button.closest("form")) }, at: Date.now() } });
    if (button.dataset.here !== undefined) return;
    button.setAttribute("aria-busy", "true");
    button.disabled = true;
  };

  let waiting = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-draft]");
    if (!form) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (form.isConnected) dash.set_props(form.dataset.draft, { data: held(form) }); }, 300);
  });
  document.addEventListener("submit", (event) => event.preventDefault());

  const say = (words) => { const place = document.getElementById("said"); if (place) place.textContent = words; };

  const share = async (button) => {
    const label = button.querySelector("span");
    try {
      await navigator.clipboard.writeText(location.href);
      label.textContent = "Copied";
      say("The address of this view was copied");
    } catch {
      label.textContent = "Copy the address bar";
    }
    setTimeout(() => { label.textContent = "Share"; }, 2000);
  };

  const copy = async (button) => {
    const label = button.querySelector("span");
    try {
      await navigator.clipboard.writeText(button.dataset.text);
      label.textContent = "Copied";
      say(`${button.getAttribute("aria-label")}: done`);
    } catch {
      label.textContent = "Select it";
    }
    setTimeout(() => { label.textContent = "Copy"; }, 2000);
  };

  const carried = () => {
    const kept = [...new URLSearchParams(location.search)].filter(([key]) => CARRIED.includes(key));
    return kept.length ? "?" + [["v", VERSION], ...kept].map((pair) => pair.map(encodeURIComponent).join("=")).join("&") : "";
  };

  // What a link opens, or lists, is added to the address as it is by then, so that a search and the period stay.
  const placed = (key, what) => {
    const kept = [...new URLSearchParams(location.search)].filter(([one]) => one !== key && one !== "v");
    const pairs = what ? [...kept, [key, what]] : kept;
    return pairs.length ? "?" + [["v", VERSION], ...pairs].map((pair) => pair.map(encodeURIComponent).join("=")).join("&") : "?";
  };

  // What else is looked at, such as the unit of a table, goes along with a link that was made before it was chosen.
  const along = (href, keys) => {
    const now = new URLSearchParams(location.search), there = new URLSearchParams(href.startsWith("?") ? href : "");
    const absent = keys.filter((key) => now.get(key) && !there.has(key));
    const more = absent.map((key) => `${key}=${encodeURIComponent(now.get(key))}`).join("&");
    return !more ? href : href === "?" ? `?v=${VERSION}&${more}` : `${href}&${more}`;
  };

  const leads = (link) => {
    const { opens, at, href, keep } = link.dataset;
    if (opens !== undefined) return placed("open", opens);
    if (at !== undefined) return placed("at", new URLSearchParams(location.search).get("at") === at ? "" : at);
    return along(link.getAttribute("href") ?? href, (keep ?? "").split(" ").filter(Boolean));
  };

  const go = (link) => {
    if (link.dataset.opens && !link.closest(".drawer")) pressed = openers(link.dataset.opens).indexOf(link);
    const href = leads(link);
    const to = href === "?" ? location.pathname : href.startsWith("?") ? location.pathname + href : href;
    history.pushState(null, "", link.dataset.carry === undefined ? to : to + carried());
    if (link.dataset.carry !== undefined || link.dataset.top !== undefined) scrollTo(0, 0);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  document.addEventListener("click", (event) => {
    const menu = event.target.closest("[data-action=menu]");
    if (menu) fold(!menu.closest(".sidebar").classList.contains("unfolded"));
    const action = event.target.closest("[data-action=share], [data-action=copy]");
    if (action) (action.dataset.action === "share" ? share : copy)(action);
    for (const open of document.querySelectorAll("details.pop[open]")) if (!open.contains(event.target)) open.open = false;
    const button = event.target.closest("[data-do], [data-ask]");
    if (button?.dataset.ask) dash.set_props(button.dataset.ask, { data: held(button.closest("form")) });
    else if (button) act(button);
    const filled = event.target.closest("[data-fill]");
    if (filled) { const [id, value] = JSON.parse(filled.dataset.fill); dash.set_props(id, { value }); filled.closest("form")?.dispatchEvent(new Event("input", { bubbles: true })); }
    const link = event.target.closest("[data-nav]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    link.closest("details.pop")?.removeAttribute("open");
    go(link);
  });

  // A table of hours is one stop of the keyboard; arrows go from hour to hour in it.
  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const walk = (event) => {
    const from = event.target.closest?.(".hourly a"), step = STEPS[event.key];
    if (!from || !step) return;
    const row = from.closest("tr").rowIndex + step[0], cell = from.closest("td").cellIndex + step[1];
    const to = from.closest("table").rows[row]?.cells[cell]?.querySelector("a");
    if (!to) return;
    event.preventDefault();
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };

  document.addEventListener("keydown", (event) => {
    walk(event);
    if (event.key !== "Escape") return;
    const popovers = document.querySelectorAll("details.pop[open]");
    for (const open of popovers) { open.open = false; open.querySelector("summary").focus(); }
    const close = document.querySelector(".drawer [data-close]");
    if (close && !popovers.length && !document.querySelector("[data-state=open]")) go(close);
  });
})();
