// The address is the state of a page. Controls write it, links are addresses, and the server reads it.
(() => {
  const VERSION = "1";
  const LOOK = ["by", "in"]; // how the chart is cut; everything else is the scope of all numbers
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
  let choices = {};
  const fill = (controls) => {
    const params = new URLSearchParams(location.search);
    for (const [key, id] of many(controls)) {
      const value = params.getAll(key);
      const found = choices[key] ?? [];
      const known = new Set(found.map((choice) => choice.value));
      const absent = value.filter((one) => !known.has(one)).map((one) => ({ value: one, label: one || "Unknown" }));
      dash.set_props(id, { options: [...found, ...absent], value });
    }
  };

  const offer = (fresh, controls) => {
    choices = fresh ?? {};
    fill(controls);
  };

  // One callback owns the address, the controls and what the server is asked, so that they cannot disagree. What a
  // person did last wins (a control, a bar of the chart); all else is as the address says.
  let last = null;
  const address = (_search, click, ...rest) => {
    const [controls, figure] = rest.slice(-2);
    const causes = dash.callback_context.triggered.map((cause) => cause.prop_id);
    let params = new URLSearchParams(location.search);
    if (causes.includes("chart.clickData")) {
      const hit = click?.points?.map((point) => figure.data[point.curveNumber]?.meta?.href).find(Boolean);
      if (hit) params = new URLSearchParams(hit);
    }
    if ((params.get("v") ?? VERSION) !== VERSION) params = new URLSearchParams();
    const now = read(params, controls);
    if (last) controls.forEach(([, id], at) => { if (causes.includes(`${id}.value`)) now[at] = rest[at]; });
    const next = { address: write(now, controls), scope: only(now, controls, (key) => !LOOK.includes(key)), look: only(now, controls, (key) => LOOK.includes(key)) };
    const before = last ?? {};
    last = next;
    const renew = (part) => (next[part] === before[part] ? dash.no_update : next[part]);
    if (next.address !== before.address) setTimeout(() => fill(controls));
    return [
      next.address === location.search ? dash.no_update : next.address,
      renew("scope"),
      renew("look"),
      ...controls.flatMap(([, , usual], at) => (usual === null ? [] : [now[at] === rest[at] ? dash.no_update : now[at]])),
    ];
  };

  // New calls show up by themselves, unless nobody looks or somebody is in the middle of something.
  const tick = (count) => (document.hidden || document.querySelector("details.pop[open], [data-state=open], .hoverlayer > *") ? dash.no_update : count);

  const element = (type, children, props = {}) => ({ namespace: "dash_html_components", type, props: { children, ...props } });

  // The chart's own numbers as a table, built only when somebody asks for it.
  const table = (clicks, figure) => {
    if (!clicks || clicks % 2 === 0) return null;
    const layers = figure.data.filter((trace) => trace.meta?.label);
    if (!layers.length) return null;
    const head = element("Thead", element("Tr", [element("Th", "Day (UTC)", { scope: "col" }), ...layers.map((layer) => element("Th", layer.meta.label, { scope: "col" }))]));
    const rows = layers[0].x.map((day, at) => element("Tr", [element("Th", day, { scope: "row" }), ...layers.map((layer) => element("Td", layer.meta.texts?.[at] ?? layer.customdata[at]))]));
    return element("Table", [head, element("Tbody", rows)], { className: "figures" });
  };

  dash.millicent = { address, offer, tick, table };

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

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action=share]");
    if (button) share(button);
    for (const open of document.querySelectorAll("details.pop[open]")) if (!open.contains(event.target)) open.open = false;
    const link = event.target.closest("a[data-nav]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href") === "?" ? location.pathname : link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details.pop[open]")) { open.open = false; open.querySelector("summary").focus(); }
  });
})();
