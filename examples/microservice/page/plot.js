"use strict";
// Plots of the last two minutes, a reading a second, the newest at the right edge.
const SECONDS = 120;

const sum = values => values.reduce((a, b) => a + b, 0);

// A list that forgets what is older than the plots show.
function remember(list, value) {
  list.push(value);
  if (list.length > SECONDS) list.shift();
}

// A line; a reading that is not known leaves its point out.
function line(node, values, top) {
  const first = SECONDS - values.length;
  const points = values.flatMap((v, i) => v === null ? [] : [`${first + i},${(97 - 92 * v / top).toFixed(1)}`]);
  node.setAttribute("points", points.join(" "));
}

// Areas on top of each other that fill the height: each Pod's part of the whole, over a few readings so that it is calm.
function stack(svg, series) {
  const length = Math.max(0, ...series.map(one => one.values.length));
  const base = new Array(length).fill(0), calm = 5;
  const lately = series.map(one => {
    const padded = new Array(length - one.values.length).fill(0).concat(one.values);
    return padded.map((_, i) => sum(padded.slice(Math.max(0, i - calm + 1), i + 1)));
  });
  const total = base.map((_, i) => sum(lately.map(values => values[i])));
  series.forEach((one, k) => {
    if (!one.path.isConnected) svg.append(one.path);
    const lower = [], upper = [];
    for (let i = 0; i < length; i++) {
      const x = SECONDS - length + i, part = total[i] > 0 ? 100 * lately[k][i] / total[i] : 0;
      lower.push(`${x},${(100 - base[i]).toFixed(2)}`);
      base[i] += part;
      upper.push(`${x},${(100 - base[i]).toFixed(2)}`);
    }
    one.path.setAttribute("d", length > 1 ? `M${upper.join("L")}L${lower.reverse().join("L")}Z` : "");
  });
}

// Marks on the same axis of time; what is older than the axis goes.
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
