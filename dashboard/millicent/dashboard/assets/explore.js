// The Cost explorer: what opens beside it does not ask for its chart again, and bars are links.
(() => {
  const dash = window.dash_clientside = window.dash_clientside || {};

  const cut = (look, was) => {
    const params = new URLSearchParams(look ?? "");
    params.delete("open");
    const now = params.toString();
    return now === was ? dash.no_update : now;
  };

  const clicked = (click, figure) => {
    const href = click?.points?.map((point) => figure.data[point.curveNumber]?.meta?.href).find(Boolean);
    if (!href) return;
    history.pushState(null, "", href.startsWith("?") ? location.pathname + href : href);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  dash.explore = { cut, clicked };
})();
