// The console's only script: keys, and what is live. Pages are complete without it. Nothing here makes elements of texts: pages are
// fetched as documents, and texts are set as texts.
"use strict";
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // A part of the page, anew: what the server makes of it now.
  const refresh = (part, then) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 10000;
    request.onloadend = () => {
      const fresh = request.status === 200 && request.response && request.response.getElementById(part.id);
      if (request.response && $("form.login", request.response)) location.reload();
      // What is the same stays: somebody may be reading or selecting it.
      if (fresh && !fresh.isEqualNode(part)) {
        const at = rows().indexOf(document.activeElement.closest("[data-row]"));
        const inside = part.contains(document.activeElement);
        part.replaceChildren(...fresh.childNodes);
        if (inside && rows()[at]) focus(rows()[at]);
      }
      if (then) then();
    };
    request.send();
  };
  const busy = () => document.hidden || $("dialog[open]") || (document.activeElement && document.activeElement.matches("input, select"));
  for (const part of all("[data-refresh]")) {
    const again = () => setTimeout(() => (busy() ? again() : refresh(part, again)), part.dataset.refresh * 1000);
    again();
  }

  // What a stream brings: an event of the journal, or a chunk of a reply that is being written.
  const follow = (url, take, state = () => {}) => {
    const source = new EventSource(url);
    source.onopen = () => state("Live");
    source.onerror = () => state(source.readyState === EventSource.CLOSED ? "Not connected: load the page anew" : "Connecting again");
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      take(event, Boolean(event.data) && event.type === "com.intercom.fin_reply_chunk");
    };
    return source;
  };
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // A conversation, as it goes on.
  const conversation = $("[data-live]");
  if (conversation) {
    const writing = $("#writing");
    let asked = false, replied = false;
    const look = () => {
      const done = replied;
      asked = replied = false;
      refresh(conversation, () => done && !replied && writing.replaceChildren());
    };
    const source = follow(conversation.dataset.live, (event, chunk) => {
      if (chunk) {
        const words = make("div", event.data.chunk_text, "words writing");
        const message = make("div", "", "message fin");
        message.append(make("p", "fin is writing", "by"), words);
        writing.replaceChildren(message);
      } else {
        replied ||= event.type === "com.intercom.fin_replied";
        // Several at once are one look. Transcripts follow the journal within a second: what is not there yet comes with a later look.
        if (!asked) setTimeout(look, 1000);
        asked = true;
      }
    });
    addEventListener("pagehide", () => source.close());
  }

  // The live table.
  const table = $("#live");
  if (table) {
    const most = 500, body = $("tbody", table), state = $("#live-state"), pause = $("#live-pause");
    const writing = new Map();
    let source = null, paused = false, last = null;
    const link = (href, text) => {
      const a = make("a", text);
      a.href = href;
      return a;
    };
    const row = (event) => {
      const tr = make("tr");
      tr.dataset.row = "";
      const cells = ["", "", "", "", ""].map(() => make("td"));
      const at = event.receivedtime || event.time || "";
      const time = make("time", at.slice(11, 19));
      time.dateTime = at;
      const name = event.type.replace("com.intercom.", "");
      cells[0].append(event.id ? link(`/events/${encodeURIComponent(event.id)}`, "") : "");
      (cells[0].firstChild instanceof Element ? cells[0].firstChild : cells[0]).append(time);
      cells[1].append(make("bdi", name));
      if (event.subject) cells[2].append(link(`/conversations/${encodeURIComponent(event.subject)}`, event.subject));
      cells[3].append(make("bdi", event.finstatus || ""));
      tr.append(...cells);
      return tr;
    };
    const words = (event) => {
      const html = event.data && event.data.message && event.data.message.body;
      return typeof html === "string" ? html.replace(/<\/?(a|b|i|em|strong|code|span|u|s)\b[^>]*>/gi, "").replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim().slice(0, 200) : "";
    };
    const put = (tr) => {
      body.prepend(tr);
      while (body.children.length > most) body.lastChild.remove();
    };
    const take = (event, chunk) => {
      const key = `${event.subject} ${event.data && event.data.stream_id}`;
      if (chunk) {
        const tr = writing.get(key) || row(event);
        if (!writing.has(key)) {
          writing.set(key, tr);
          tr.classList.add("writing-row");
          tr.firstChild.replaceChildren(make("span", "now", "none"));
          put(tr);
        }
        tr.lastChild.replaceChildren(make("bdi", event.data.chunk_text, "writing"));
        return;
      }
      if (event.type === "com.intercom.fin_replied") {
        for (const [known, tr] of writing) {
          if (known === key || (known.startsWith(`${event.subject} `) && !(event.data && event.data.stream_id))) {
            tr.remove();
            writing.delete(known);
          }
        }
      }
      const tr = row(event);
      tr.lastChild.append(make("bdi", words(event)));
      put(tr);
      last = event.receivedtime;
    };
    const start = () => {
      if (source || paused || document.hidden) return;
      const url = new URL(table.dataset.stream, location.href);
      if (last) url.searchParams.set("since", last);
      const seen = new Set([...body.querySelectorAll("a[href^='/events/']")].map((a) => a.getAttribute("href")));
      source = follow(url, (event, chunk) => {
        if (chunk || !seen.has(`/events/${encodeURIComponent(event.id)}`)) take(event, chunk);
      }, (text) => (state.textContent = text));
    };
    const stop = (why) => {
      if (source) source.close();
      source = null;
      state.textContent = why;
    };
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", paused);
      pause.textContent = paused ? "Go on" : "Pause";
      if (paused) stop("Paused"); else start();
    });
    document.addEventListener("visibilitychange", () => (document.hidden ? stop("Paused while hidden") : start()));
    addEventListener("pagehide", () => stop(""));
    start();
  }

  // Small conveniences.
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText($(`#${button.dataset.copy}`).textContent);
      button.textContent = "Copied";
    });
  }
  const everything = $("#select-all");
  if (everything) everything.addEventListener("change", () => all("input[name=id]").forEach((box) => (box.checked = everything.checked)));

  // Keys.
  const dialog = $("#keys"), off = $("#keys-off");
  const showKeys = () => dialog && !dialog.open && dialog.showModal();
  if ($("#show-keys")) $("#show-keys").addEventListener("click", showKeys);
  if (off) {
    off.checked = localStorage.getItem("keys") === "off";
    off.addEventListener("change", () => localStorage.setItem("keys", off.checked ? "off" : "on"));
  }
  const rows = () => all("[data-row]");
  const focus = (row) => {
    const target = row.tabIndex >= 0 || row.matches("[tabindex]") ? row : $("a", row) || row;
    target.focus();
    row.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const list = rows(), at = list.findIndex((row) => row.contains(document.activeElement));
    const next = list[at < 0 ? 0 : Math.min(Math.max(at + by, 0), list.length - 1)];
    if (next) focus(next);
  };
  const press = (key) => {
    const row = document.activeElement.closest("[data-row]");
    const button = (row && $(`[data-key="${key}"]`, row)) || (!row && $(`main [data-key="${key}"]`)) || $(`.bulk [data-key="${key}"]`);
    if (button) button.click();
    return Boolean(button);
  };
  let go = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target.matches("input, select, textarea")) return;
    if (!dialog || dialog.open || (off && off.checked)) return;
    const gone = Date.now() - go < 1500 && $(`[data-go="${CSS.escape(event.key)}"]`);
    go = 0;
    if (gone) gone.click();
    else if (event.key === "g") go = Date.now();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") showKeys();
    else if (event.key === "/" && $("form.filter input")) $("form.filter input").focus();
    else if (!(["r", "p"].includes(event.key) && press(event.key))) return;
    event.preventDefault();
  });
})();
