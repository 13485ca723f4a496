"use strict";
// Plots of the last two minutes with one sample per second. The newest sample is at the right edge.
const SECONDS = 120;

const sum = values => values.reduce((a, b) => a + b, 0);

// Appends a sample and removes the oldest one if it is too old for the plots.
function append(list, value) {
  list.push(value);
  if (list.length > SECONDS) list.shift();
}

// Draws a line. Unknown samples (null) are left out.
function line(node, values, max) {
  const first = SECONDS - values.length;
  const points = values.flatMap((v, i) => v === null ? [] : [`${first + i},${(97 - 92 * v / max).toFixed(1)}`]);
  node.setAttribute("points", points.join(" "));
}

// Draws stacked areas that fill the height: each Pod's share of the total. A moving average smooths them.
function stack(svg, series) {
  const length = Math.max(0, ...series.map(pod => pod.values.length));
  const base = new Array(length).fill(0), average = 5;
  const smoothed = series.map(pod => {
    const padded = new Array(length - pod.values.length).fill(0).concat(pod.values);
    return padded.map((_, i) => sum(padded.slice(Math.max(0, i - average + 1), i + 1)));
  });
  const total = base.map((_, i) => sum(smoothed.map(values => values[i])));
  series.forEach((pod, k) => {
    if (!pod.path.isConnected) svg.append(pod.path);
    const lower = [], upper = [];
    for (let i = 0; i < length; i++) {
      const x = SECONDS - length + i, share = total[i] > 0 ? 100 * smoothed[k][i] / total[i] : 0;
      lower.push(`${x},${(100 - base[i]).toFixed(2)}`);
      base[i] += share;
      upper.push(`${x},${(100 - base[i]).toFixed(2)}`);
    }
    pod.path.setAttribute("d", length > 1 ? `M${upper.join("L")}L${lower.reverse().join("L")}Z` : "");
  });
}

// Draws event marks on the same time axis. Removes marks that are older than the axis shows.
function marks(svg, list, now) {
  while (list.length && now - list[0].at > SECONDS * 1000) list.shift().path.remove();
  for (const mark of list) {
    const x = (SECONDS - 1 - (now - mark.at) / 1000).toFixed(2);
    mark.path.setAttribute("d", `M${x},0V10`);
    if (!mark.path.isConnected) svg.append(mark.path);
  }
}

function path(tone) {
  const node = document.getElementById("path").content.querySelector("path").cloneNode();
  if (tone) node.setAttribute("class", tone);
  return node;
}
