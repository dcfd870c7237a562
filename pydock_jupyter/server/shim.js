// Runs before the scripts of an application's page.  The application expects to be served at "/"; this script adds the
// prefix to requests of its scripts for root-absolute URLs, which would otherwise go to Jupyter.  URLs below the prefix
// or on another host are unchanged.  A script cannot intercept location.href, import() and CSS.
(() => {
  "use strict";
  const script = document.currentScript;
  const { prefix, authority } = script.dataset;
  script.remove(); // a framework that hydrates the document expects the elements that it rendered
  // Behind two proxies, the inner prefix follows the outer one.
  const at = location.pathname.indexOf(`${prefix}/`);
  const root = location.pathname.slice(0, Math.max(at, 0)) + prefix;

  function place(url) {
    let parsed;
    try {
      parsed = new URL(url, document.baseURI);
    } catch {
      return url;
    }
    if (!/^(https?|wss?):$/.test(parsed.protocol)) {
      return url;
    }
    const isOwnHost = parsed.host === authority; // the host that the application sees
    if (isOwnHost) {
      parsed.protocol = location.protocol.replace("http", parsed.protocol.startsWith("ws") ? "ws" : "http");
      parsed.host = location.host;
    } else if (parsed.host !== location.host) {
      return url;
    }
    const isBelow = parsed.pathname === root || parsed.pathname.startsWith(`${root}/`);
    if (!isBelow) {
      parsed.pathname = root + parsed.pathname;
    }
    return isOwnHost || !isBelow ? parsed.href : url;
  }

  const isAddress = value => typeof value === "string" || value instanceof URL;

  function placing(index) {
    const change = values => values.map((value, i) => (i === index && isAddress(value) ? place(value) : value));
    return {
      apply: (target, self, values) => Reflect.apply(target, self, change(values)),
      construct: (target, values, made) => Reflect.construct(target, change(values), made)
    };
  }

  function wrap(owner, name, index) {
    if (owner && typeof owner[name] === "function") {
      owner[name] = new Proxy(owner[name], placing(index));
    }
  }

  for (const name of ["Request", "WebSocket", "EventSource", "Worker", "SharedWorker", "fetch", "open"]) {
    wrap(window, name, 0);
  }
  wrap(XMLHttpRequest.prototype, "open", 1);
  wrap(Navigator.prototype, "sendBeacon", 0);
  wrap(window.ServiceWorkerContainer && ServiceWorkerContainer.prototype, "register", 0);
  wrap(History.prototype, "pushState", 2);
  wrap(History.prototype, "replaceState", 2);

  const attributes = {
    HTMLAnchorElement: "href",
    HTMLFormElement: "action",
    HTMLIFrameElement: "src",
    HTMLImageElement: "src",
    HTMLLinkElement: "href",
    HTMLMediaElement: "src",
    HTMLScriptElement: "src",
    HTMLSourceElement: "src"
  };
  for (const [element, attribute] of Object.entries(attributes)) {
    const prototype = window[element].prototype;
    const property = Object.getOwnPropertyDescriptor(prototype, attribute);
    Object.defineProperty(prototype, attribute, {
      ...property,
      set(value) {
        property.set.call(this, isAddress(value) ? place(value) : value);
      }
    });
  }
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    const isKnown = Object.entries(attributes).some(
      ([element, attribute]) => attribute === String(name).toLowerCase() && this instanceof window[element]
    );
    return setAttribute.call(this, name, isKnown && isAddress(value) ? place(value) : value);
  };
})();
