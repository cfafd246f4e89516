// What Dash's components lack for those who hear a page or use a keyboard, set right as they appear: its lists of
// choices call themselves listboxes of options that hold buttons, its dropdown can focus what it hides, and a table that scrolls
// cannot be reached.
(() => {
  const set = (node, name, value) => {
    if (node.getAttribute(name) !== value) value === null ? node.removeAttribute(name) : node.setAttribute(name, value);
  };

  const mend = () => {
    for (const list of document.querySelectorAll(".dash-radioitems[role=listbox]")) {
      set(list, "role", "radiogroup");
      set(list, "aria-label", list.closest("[aria-label]")?.getAttribute("aria-label") ?? null);
    }
    for (const list of document.querySelectorAll(".dash-checklist[role=listbox]")) set(list, "role", "group");
    for (const choice of document.querySelectorAll(":is(.dash-radioitems, .dash-checklist) label:is([role], [aria-selected])")) {
      set(choice, "role", null);
      set(choice, "aria-selected", null);
    }
    for (const target of document.querySelectorAll(".dash-dropdown-focus-target[aria-hidden=true]")) set(target, "tabindex", "-1");
    for (const box of document.querySelectorAll(".scroll")) {
      const reachable = box.querySelector("a[href], button, input, summary") || box.scrollWidth <= box.clientWidth + 1;
      set(box, "tabindex", reachable ? null : "0");
    }
  };

  let due = 0;
  const soon = () => { due ||= requestAnimationFrame(() => { due = 0; mend(); }); };
  new MutationObserver(soon).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ["role", "aria-selected", "aria-hidden"] });
  addEventListener("resize", soon);
})();
