const EVENTS = 100, WINDOW = 10, MANY = 12;
const SHAPES = { healthy: "●", probing: "◌", ejected: "✕", fenced: "⊘", draining: "▽" };
const el = id => document.getElementById(id);
const pods = new Map(); // address -> view of the Pod: its card, its number of checkouts, and two minutes of samples
const eventMarks = []; // oldest first
let hues = 0, lastUpdate = null, paused = false;

function text(node, value) { if (node.textContent !== value) node.textContent = value; }
function duration(us) {
  if (us === null) return "–";
  if (us < 1000) return us + " µs";
  return us < 1e6 ? (us / 1000).toFixed(us < 10000 ? 1 : 0) + " ms" : (us / 1e6).toFixed(1) + " s";
}
function bytes(n) {
  if (n === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return (i ? n.toFixed(1) : n) + " " + units[i];
}

// Parses the number of checkouts of each Pod from the metrics: address -> number.
function parsePicks(metrics) {
  const picks = new Map(), checkouts = new Map();
  const samples = name => [...metrics.matchAll(new RegExp(`^${name}\\{([^\\n]*)\\} (\\S+)$`, "gm"))].map(m =>
    [label => m[1].match(new RegExp(`${label}="([^"]*)"`))?.[1], Number(m[2])]);
  for (const [label, count] of samples("podpool_endpoint_checkouts_total")) checkouts.set(label("podpool_pod"), count);
  for (const [label, known] of samples("podpool_pod_info")) {
    if (!known) continue;
    const ip = label("server_address"), count = checkouts.get(label("podpool_pod")) ?? 0;
    // `/endpoints` contains the port only if it differs from the Service's.
    picks.set(ip, (picks.get(ip) ?? 0) + count);
    picks.set(`${ip.includes(":") ? `[${ip}]` : ip}:${label("server_port")}`, count);
  }
  return picks;
}

// Returns the view of a Pod. Creates the view if the Pod is new.
function viewOf(pod) {
  let view = pods.get(pod.addr);
  if (!view) {
    const node = el("card").content.firstElementChild.cloneNode(true), legend = document.createElement("li");
    const swatch = document.createElement("span"), hue = (hues++ * 137.5 + 215) % 360;
    swatch.className = "swatch";
    legend.append(swatch, document.createElement("span"));
    view = { node, legend, path: path(), picks: null, rates: [], busy: [], latency: [] };
    for (const element of [node, legend, view.path]) element.style.setProperty("--hue", hue.toFixed(1));
    node.dataset.addr = pod.addr;
    pods.set(pod.addr, view);
  }
  return view;
}

function updateCard(pod, view, total) {
  const node = view.node, find = q => node.querySelector(q), name = pod.pod ?? pod.addr;
  node.className = "card " + pod.state;
  text(find("h3"), name);
  text(find(".state"), `${SHAPES[pod.state] ?? ""} ${pod.state}`);
  text(find(".identity"), pod.pod ? `${pod.role} · ${pod.addr}` : pod.role);
  for (const field of ["in_use", "idle", "open", "waiting"]) text(find(`[data-field=${field}]`), String(pod[field]));
  text(find("[data-field=latency]"), duration(pod.latency_us));
  text(find("[data-field=lag]"), bytes(pod.lag_bytes));
  const rate = view.rates.at(-1) ?? 0, share = total > 0 ? 100 * sum(view.rates.slice(-WINDOW)) / total : 0;
  text(find(".key-picks"), `${rate.toFixed(0)} checkouts/s`);
  text(find(".key-busy"), `${pod.in_use} in use`);
  text(find(".key-latency"), `latency ${duration(pod.latency_us)}`);
  text(find(".part"), total > 0 ? `${share.toFixed(0)} % of all checkouts` : "no checkouts");
  find(".share-bar i").style.width = share + "%";
  find(".load-plot").setAttribute("aria-label",
    `plot of the last two minutes; now ${rate.toFixed(0)} checkouts per second, ${pod.in_use} connections in use`);
  find(".latency-plot").setAttribute("aria-label",
    `plot of the last two minutes; latency now ${duration(pod.latency_us)}`);
  text(view.legend.lastElementChild, `${name} ${share.toFixed(0)} %`);
}

// Makes these nodes, in this order, the children of a list. Leaves nodes alone that are already in place.
function setChildren(list, nodes) {
  nodes.forEach((node, i) => { if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null); });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
}

function update(state, picks, now) {
  const seconds = lastUpdate === null ? null : (now - lastUpdate) / 1000;
  lastUpdate = now;
  for (const pod of state.endpoints) {
    const view = viewOf(pod), count = picks.get(pod.addr) ?? 0;
    // The counter restarts at zero if a Pod is removed and added again at the same address.
    const rate = view.picks === null || seconds === null ? 0 : Math.max(0, count - view.picks) / seconds;
    view.picks = count;
    append(view.rates, rate);
    append(view.busy, pod.in_use);
    append(view.latency, pod.latency_us);
  }
  const present = new Set(state.endpoints.map(pod => pod.addr));
  for (const [addr, view] of pods) if (!present.has(addr)) { view.path.remove(); pods.delete(addr); }
  const all = [...pods.values()];
  const total = sum(all.flatMap(view => view.rates.slice(-WINDOW)));
  // The plots of all Pods have the same scale, so that they can be compared.
  const max = field => Math.max(...all.flatMap(view => view[field]).map(Number), 0);
  const maxRate = Math.max(1, max("rates")), maxBusy = Math.max(4, max("busy"));
  const maxLatency = Math.max(1000, max("latency"));
  const views = state.endpoints.map(pod => pods.get(pod.addr));
  state.endpoints.forEach((pod, i) => {
    updateCard(pod, views[i], total);
    line(views[i].node.querySelector(".picks"), views[i].rates, maxRate);
    line(views[i].node.querySelector(".busy"), views[i].busy, maxBusy);
    line(views[i].node.querySelector(".latency"), views[i].latency, maxLatency);
  });
  el("pods").className = views.length > MANY ? "many" : "";
  setChildren(el("pods"), views.map(view => view.node));
  setChildren(el("legend"), views.length > MANY ? [] : views.map(view => view.legend));
  stack(el("share"), views.map(view => ({ path: view.path, values: view.rates })));
  const shares = views.map((view, i) =>
    `${state.endpoints[i].pod ?? state.endpoints[i].addr} ${view.node.querySelector(".part").textContent}`);
  el("share").setAttribute("aria-label", shares.join(", "));
  marks(el("marks"), eventMarks, Date.now());
  const rate = sum(all.map(view => view.rates.at(-1) ?? 0));
  text(el("rate"), `${rate.toFixed(0)}/s`);
  el("none").hidden = views.length > 0;
  const healthy = state.endpoints.filter(pod => pod.state === "healthy").length;
  text(el("summary"), `${healthy} of ${views.length} Pods healthy`);
  el("summary").className = healthy === 0 ? "bad" : healthy === views.length ? "good" : "";
  updateDns(state.resolve);
}

function updateDns({ ok, age_ms, source, errors }) {
  text(el("dns-ok"), ok ? "● OK" : "✕ failing");
  el("dns-ok").className = ok ? "good" : "bad";
  text(el("dns-age"), age_ms === null ? "never" : `${(age_ms / 1000).toFixed(1)} s ago`);
  text(el("dns-errors"), String(errors));
  text(el("dns-source"), source);
}

async function poll() {
  try {
    const [state, metrics] = await Promise.all(["/endpoints", "/metrics"].map(async path => {
      const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(3000) });
      if (!response.ok) throw new Error(`${path} returned status ${response.status}`);
      return path === "/endpoints" ? response.json() : response.text();
    }));
    if (!paused) update(state, parsePicks(metrics), performance.now());
  } catch (error) {
    text(el("summary"), `The service does not respond: ${error.message}`);
    el("summary").className = "bad";
  }
  setTimeout(poll, 1000);
}

function toneOf(event) {
  const bad = ["resolve_failed", "no_healthy_pods", "primary_lost", "endpoint_fenced"];
  if (event.to === "ejected" || bad.includes(event.event)) return "bad";
  if (event.to === "healthy" || ["resolve_recovered", "healthy_pods_again", "primary_found"].includes(event.event)) return "good";
  return "";
}

function showEvent(event) {
  const line = document.createElement("li"), at = document.createElement("time");
  const label = document.createElement("span");
  const date = new Date(event.at_ms);
  at.dateTime = date.toISOString();
  at.textContent = date.toLocaleTimeString();
  label.textContent = event.text.replace(event.event, event.event.replaceAll("_", " "));
  label.className = toneOf(event);
  line.append(at, label);
  el("events").prepend(line);
  while (el("events").children.length > EVENTS) el("events").lastElementChild.remove();
  eventMarks.push({ at: event.at_ms, path: path(toneOf(event)) });
}

function listen() {
  const source = new EventSource("/events");
  source.onopen = () => text(el("link"), "Since this page was opened, newest first:");
  source.onerror = () => text(el("link"), "The event stream is interrupted; reconnecting.");
  source.onmessage = message => showEvent(JSON.parse(message.data));
}

el("pause").addEventListener("click", () => {
  paused = !paused;
  lastUpdate = null; // the next update must not compute a rate over the pause
  el("pause").setAttribute("aria-pressed", String(paused));
  text(el("pause"), paused ? "Resume" : "Pause");
});

listen();
poll();
