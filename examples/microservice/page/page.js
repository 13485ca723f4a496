const EVENTS = 100, WINDOW = 10, MANY = 12;
const SHAPES = { healthy: "●", probing: "◌", ejected: "✕", fenced: "⊘", draining: "▽" };
const el = id => document.getElementById(id);
const pods = new Map(); // by address: card, checkouts so far, and two minutes of readings
const happened = []; // marks of events, the oldest first
let seen = 0, before = null, paused = false;

function text(node, value) { if (node.textContent !== value) node.textContent = value; }
function duration(us) {
  if (us === null) return "–";
  return us < 1000 ? us + " µs" : us < 1e6 ? (us / 1000).toFixed(us < 10000 ? 1 : 0) + " ms" : (us / 1e6).toFixed(1) + " s";
}
function bytes(n) {
  if (n === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return (i ? n.toFixed(1) : n) + " " + units[i];
}

// Checkouts of every Pod, from the metrics' text: addr -> number.
function picksOf(metrics) {
  const picks = new Map();
  for (const m of metrics.matchAll(/^podpool_endpoint_picks_total\{addr="([^"]*)"[^\n]*\} (\S+)$/gm)) {
    picks.set(m[1], Number(m[2]));
  }
  return picks;
}

function known(pod) {
  let one = pods.get(pod.addr);
  if (!one) {
    const node = el("card").content.firstElementChild.cloneNode(true), legend = document.createElement("li");
    const swatch = document.createElement("span"), hue = (seen++ * 137.5 + 215) % 360;
    swatch.className = "swatch";
    legend.append(swatch, document.createElement("span"));
    one = { node, legend, path: path(), picks: null, rates: [], busy: [], latency: [] };
    for (const coloured of [node, legend, one.path]) coloured.style.setProperty("--hue", hue.toFixed(1));
    node.dataset.addr = pod.addr;
    pods.set(pod.addr, one);
  }
  return one;
}

function card(pod, one, total) {
  const node = one.node, find = q => node.querySelector(q), name = pod.pod ?? pod.addr;
  node.className = "card " + pod.state;
  text(find("h3"), name);
  text(find(".state"), `${SHAPES[pod.state] ?? ""} ${pod.state}`);
  text(find(".who"), pod.pod ? `${pod.role} · ${pod.addr}` : pod.role);
  for (const field of ["in_use", "idle", "open", "waiting"]) text(find(`[data-is=${field}]`), String(pod[field]));
  text(find("[data-is=latency]"), duration(pod.latency_us));
  text(find("[data-is=lag]"), bytes(pod.lag_bytes));
  const rate = one.rates.at(-1) ?? 0, share = total > 0 ? 100 * sum(one.rates.slice(-WINDOW)) / total : 0;
  text(find(".p"), `${rate.toFixed(0)} checkouts/s`);
  text(find(".b"), `${pod.in_use} in use`);
  text(find(".l"), `latency ${duration(pod.latency_us)}`);
  text(find(".part"), total > 0 ? `${share.toFixed(0)} % of all checkouts` : "no checkouts at the moment");
  find(".shared i").style.width = share + "%";
  find(".fast").setAttribute("aria-label", `the last two minutes: now ${rate.toFixed(0)} checkouts a second, ${pod.in_use} connections in use`);
  find(".slow").setAttribute("aria-label", `the last two minutes: latency now ${duration(pod.latency_us)}`);
  text(one.legend.lastElementChild, `${name} ${share.toFixed(0)} %`);
}

function inOrder(list, nodes) {
  nodes.forEach((node, i) => { if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null); });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
}

function update(state, picks, now) {
  const seconds = before === null ? null : (now - before) / 1000;
  before = now;
  for (const pod of state.endpoints) {
    const one = known(pod), count = picks.get(pod.addr) ?? 0;
    // A Pod that came back at the same address begins to count anew.
    const more = one.picks === null || seconds === null ? 0 : Math.max(0, count - one.picks) / seconds;
    one.picks = count;
    remember(one.rates, more);
    remember(one.busy, pod.in_use);
    remember(one.latency, pod.latency_us);
  }
  const here = new Set(state.endpoints.map(pod => pod.addr));
  for (const [addr, one] of pods) if (!here.has(addr)) { one.path.remove(); pods.delete(addr); }
  const all = [...pods.values()];
  const total = sum(all.flatMap(one => one.rates.slice(-WINDOW)));
  // One scale for all, so that the plots can be compared.
  const most = field => Math.max(...all.flatMap(one => one[field]).map(Number), 0);
  const top = Math.max(1, most("rates")), busiest = Math.max(4, most("busy")), slowest = Math.max(1000, most("latency"));
  const shown = state.endpoints.map(pod => pods.get(pod.addr));
  state.endpoints.forEach((pod, i) => {
    card(pod, shown[i], total);
    line(shown[i].node.querySelector(".picks"), shown[i].rates, top);
    line(shown[i].node.querySelector(".busy"), shown[i].busy, busiest);
    line(shown[i].node.querySelector(".latency"), shown[i].latency, slowest);
  });
  el("pods").className = shown.length > MANY ? "many" : "";
  inOrder(el("pods"), shown.map(one => one.node));
  inOrder(el("legend"), shown.length > MANY ? [] : shown.map(one => one.legend));
  stack(el("share"), shown.map(one => ({ path: one.path, values: one.rates })));
  el("share").setAttribute("aria-label", shown.map((one, i) => `${state.endpoints[i].pod ?? state.endpoints[i].addr} ${one.node.querySelector(".part").textContent}`).join(", "));
  marks(el("marks"), happened, Date.now());
  const rate = sum(all.map(one => one.rates.at(-1) ?? 0));
  text(el("rate"), `${rate.toFixed(0)} a second`);
  el("none").hidden = shown.length > 0;
  const healthy = state.endpoints.filter(pod => pod.state === "healthy").length;
  text(el("summary"), `${healthy} of ${shown.length} Pods healthy`);
  el("summary").className = healthy === 0 ? "bad" : healthy === shown.length ? "good" : "";
  resolve(state.resolve);
}

function resolve({ ok, age_ms, source, errors }) {
  text(el("dns-ok"), ok ? "● well" : "✕ failing");
  el("dns-ok").className = ok ? "good" : "bad";
  text(el("dns-age"), age_ms === null ? "never" : `${(age_ms / 1000).toFixed(1)} s ago`);
  text(el("dns-errors"), String(errors));
  text(el("dns-source"), source);
}

async function poll() {
  try {
    const [state, metrics] = await Promise.all(["/endpoints", "/metrics"].map(async path => {
      const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(3000) });
      if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
      return path === "/endpoints" ? answer.json() : answer.text();
    }));
    if (!paused) update(state, picksOf(metrics), performance.now());
  } catch (error) {
    text(el("summary"), `The service does not answer: ${error.message}`);
    el("summary").className = "bad";
  }
  setTimeout(poll, 1000);
}

function toneOf(event) {
  if (event.to === "ejected" || ["resolve_failed", "panic_began", "endpoint_fenced"].includes(event.event)) return "bad";
  if (event.to === "healthy" || ["resolve_recovered", "panic_ended"].includes(event.event)) return "good";
  return "";
}

function tell(event) {
  const line = document.createElement("li"), at = document.createElement("time"), what = document.createElement("span");
  const date = new Date(event.at_ms);
  at.dateTime = date.toISOString();
  at.textContent = date.toLocaleTimeString();
  what.textContent = event.text.replace(event.event, event.event.replaceAll("_", " "));
  what.className = toneOf(event);
  line.append(at, what);
  el("events").prepend(line);
  while (el("events").children.length > EVENTS) el("events").lastElementChild.remove();
  happened.push({ at: event.at_ms, path: path(toneOf(event)) });
}

function listen() {
  const source = new EventSource("/events");
  source.onopen = () => text(el("link"), "Since this page was opened, the newest first:");
  source.onerror = () => text(el("link"), "The stream of events is interrupted; trying again.");
  source.onmessage = message => tell(JSON.parse(message.data));
}

el("pause").addEventListener("click", () => {
  paused = !paused;
  before = null; // what happened meanwhile is nobody's rate
  el("pause").setAttribute("aria-pressed", String(paused));
  text(el("pause"), paused ? "Go on" : "Pause");
});

listen();
poll();
