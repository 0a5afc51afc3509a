// The picture: networks and nodes on a map, servers and correspondents beside it, the core between.
//
// The map has the scene's own coordinates, y upwards. A message goes from its sender over the access
// network that the sender uses to the core, and on over the receiver's, as in the simulator.

const COLOURS = ["update", "query", "notify", "address", "dns", "data", "other"];
const FAMILIES = [
  ["update", /^IMS Update/], ["query", /^MA /], ["notify", /^HA Notify/], ["address", /^HA /],
];
/** Labels of messages that are drawn at once; more would be a smear. */
const MOST_LABELS = 16;
/** Nodes whose names are all drawn. */
const MOST_NAMES = 40;
/** Parties beside the map up to which correspondents have their names drawn. */
const MOST_BESIDE = 24;

/** Which colour a message has. */
function family(message) {
  if (message.kind !== "signal") return message.kind;
  return FAMILIES.find(([, form]) => form.test(message.label))?.[0] ?? "other";
}

/** A message's step in the paper's figures, and its label. */
const caption = (message) => (message.step ? `(${message.step}) ${message.label}` : message.label);
const isAnswer = (message) => /(Reply|Ack|Answer)$/.test(message.label);

class Stage {
  constructor(canvas, data, timeline) {
    this.canvas = canvas;
    this.brush = canvas.getContext("2d");
    this.timeline = timeline;
    this.networks = data.networks.map(([name, x, y, radius]) => ({ name, x, y, radius }));
    this.nodes = data.nodes;
    this.parties = data.parties.map(([name, kind, network]) => ({ name, kind, network }));
    this.bounds = this.boundsOfMap();
    this.dnsAnswers = this.askedAndAnswered();
    this.followed = -1;
    this.showData = true;
  }

  /** Whether answers of the DNS are messages of their own; else a look-up goes there and back. */
  askedAndAnswered() {
    const fromDns = (m) => this.parties[m.from - this.nodes.length]?.kind === "dns";
    return this.timeline.messages.some(fromDns);
  }

  // ---- places ------------------------------------------------------------------------------------

  boundsOfMap() {
    const xs = this.networks.flatMap((n) => [n.x - n.radius, n.x + n.radius]);
    const ys = this.networks.flatMap((n) => [n.y - n.radius, n.y + n.radius]);
    for (const node of this.nodes) {
      for (const piece of node.path) {
        for (let i = 0; i < piece.length; i += 3) {
          xs.push(piece[i + 1]);
          ys.push(piece[i + 2]);
        }
      }
    }
    const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
    const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
    return { left: least(xs), right: most(xs), low: least(ys), high: most(ys) };
  }

  /** Fit the picture into the canvas as large as it is now. */
  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.layOut();
  }

  layOut() {
    const { left, right, low, high } = this.bounds;
    const wide = (right - left) / (high - low) > 1.5 || this.width < 560;
    const map = wide
      ? { x: 16, y: this.height * 0.46, width: this.width - 32, height: this.height * 0.54 - 28 }
      : { x: 16, y: 26, width: this.width * 0.62 - 16, height: this.height - 52 };
    this.scale = Math.min(map.width / (right - left), map.height / (high - low));
    this.middle = { x: map.x + map.width / 2, y: map.y + map.height / 2 };
    this.core = wide
      ? { x: this.width / 2, y: this.height * 0.3 }
      : { x: this.width * 0.74, y: this.height / 2 };
    this.placeParties(wide);
  }

  placeParties(wide) {
    const beside = this.parties.filter((party) => party.network === null);
    this.crowded = beside.length > MOST_BESIDE;
    beside.forEach((party, index) => {
      const share = (index + 0.5) / beside.length;
      const second = beside.length > 8 && index % 2 === 1;
      party.place = wide
        ? { x: 40 + (this.width - 80) * share, y: this.height * (second ? 0.17 : 0.08) }
        : { x: this.width * (second ? 0.85 : 0.94) - 8, y: 30 + (this.height - 60) * share };
    });
    this.parties.filter((party) => party.network !== null).forEach((party, index) => {
      const disc = this.networks[party.network];
      const turn = 2.4 * index + 2.2;
      party.place = this.onMap(
        disc.x + 0.7 * disc.radius * Math.cos(turn), disc.y + 0.7 * disc.radius * Math.sin(turn));
    });
  }

  onMap(x, y) {
    const { left, right, low, high } = this.bounds;
    return {
      x: this.middle.x + (x - (left + right) / 2) * this.scale,
      y: this.middle.y - (y - (low + high) / 2) * this.scale,
    };
  }

  centre(network) {
    return this.onMap(this.networks[network].x, this.networks[network].y);
  }

  /** Where a node is, or `null` while it is not there. */
  nodeAt(node, time) {
    for (const piece of node.path) {
      const count = piece.length / 3;
      if (time < piece[0] || time > piece[3 * (count - 1)]) continue;
      const next = Math.min(count - 1, Math.max(1, firstWhere(count, (i) => piece[3 * i] > time)));
      const [t0, x0, y0, t1, x1, y1] = piece.slice(3 * Math.max(0, next - 1), 3 * next + 3);
      if (t1 === undefined) return this.onMap(x0, y0);
      const share = t1 > t0 ? Math.min(1, (time - t0) / (t1 - t0)) : 1;
      return this.onMap(x0 + share * (x1 - x0), y0 + share * (y1 - y0));
    }
    return null;
  }

  /** The network that a node uses: of its links that are ready, the one that became so last. */
  usedBy(node, time) {
    let used = null;
    for (const [network, , ready, end] of node.links) {
      if (ready <= time && time < end && (!used || ready >= used.ready)) used = { network, ready };
    }
    return used ? used.network : null;
  }

  name(index) {
    const count = this.nodes.length;
    if (index < 0) return "nobody";
    return index < count ? this.nodes[index].name : this.parties[index - count].name;
  }

  /** Points of a party's way to the core at a time, the core left out. */
  wayToCore(index, time) {
    if (index < 0) return [];
    const node = this.nodes[index];
    if (!node) {
      const party = this.parties[index - this.nodes.length];
      return party.network === null ? [party.place] : [party.place, this.centre(party.network)];
    }
    const place = this.nodeAt(node, time);
    const network = this.usedBy(node, time);
    if (!place) return [];
    return network === null ? [place] : [place, this.centre(network)];
  }

  // ---- drawing -----------------------------------------------------------------------------------

  /** Read the colours again: the page's theme may have changed. */
  readColours() {
    const style = getComputedStyle(this.canvas);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colour = Object.fromEntries(
      [...COLOURS, "ink", "faint", "ground", "disc", "handover"].map((name) => [name, value(name)]));
    this.font = style.fontFamily;
  }

  draw(time, pace) {
    const { brush } = this;
    brush.clearRect(0, 0, this.width, this.height);
    brush.lineCap = "round";
    this.places = this.nodes.map((node) => this.nodeAt(node, time));
    this.drawNetworks();
    this.drawCables();
    this.nodes.forEach((node, index) => this.drawLinks(node, this.places[index], time));
    this.parties.forEach((party) => this.drawParty(party));
    this.nodes.forEach((node, index) => this.drawNode(node, index, time));
    this.drawMessages(time, pace);
  }

  drawNetworks() {
    const { brush, colour } = this;
    this.networks.forEach((network, index) => {
      const { x, y } = this.centre(index);
      brush.beginPath();
      brush.arc(x, y, network.radius * this.scale, 0, 2 * Math.PI);
      brush.globalAlpha = 0.09;
      brush.fillStyle = colour.disc;
      brush.fill();
      brush.globalAlpha = 0.4;
      this.stroke(colour.disc, 1);
      brush.globalAlpha = 1;
    });
    this.networks.forEach((network, index) => {
      const { x, y } = this.centre(index);
      brush.beginPath();
      brush.moveTo(x, y - 7);
      brush.lineTo(x + 6, y + 5);
      brush.lineTo(x - 6, y + 5);
      brush.closePath();
      brush.fillStyle = colour.disc;
      brush.fill();
      this.text(network.name, x, y + 19, { weight: 600, colour: colour.disc });
    });
  }

  /** The fixed part: networks and parties to the core. */
  drawCables() {
    const ends = [
      ...this.networks.map((_, index) => [this.centre(index), this.core]),
      ...this.parties.map((party) => [
        party.place, party.network === null ? this.core : this.centre(party.network)]),
    ];
    for (const [from, to] of ends) this.line(from, to, this.colour.faint, 1);
    const { brush, core } = this;
    brush.beginPath();
    brush.ellipse(core.x, core.y, 30, 18, 0, 0, 2 * Math.PI);
    brush.fillStyle = this.colour.ground;
    brush.fill();
    this.stroke(this.colour.faint, 2);
    this.text("core", core.x, core.y + 4, {});
  }

  drawLinks(node, place, time) {
    if (!place) return;
    const used = this.usedBy(node, time);
    const heavy = this.nodes.length > 12 ? 1.1 : 1.8;
    for (const [network, start, ready, end] of node.links) {
      if (time < start || time >= end) continue;
      const inUse = network === used && ready <= time;
      this.brush.setLineDash(ready > time ? [3, 5] : []);
      this.line(place, this.centre(network), this.colour.ink, inUse ? heavy : 0.8);
      this.brush.setLineDash([]);
    }
  }

  drawParty(party) {
    const { brush, colour } = this;
    const { x, y } = party.place;
    brush.beginPath();
    if (party.kind === "correspondent") brush.arc(x, y, 8, 0, 2 * Math.PI);
    else if (party.kind === "dns") {
      for (const [dx, dy] of [[0, -10], [10, 0], [0, 10], [-10, 0]]) brush.lineTo(x + dx, y + dy);
      brush.closePath();
    } else brush.roundRect(x - 10, y - 8, 20, 16, 3);
    brush.fillStyle = colour.ground;
    brush.fill();
    this.stroke(colour.ink, 1.6);
    const named = !this.crowded || party.kind !== "correspondent";
    if (named) this.text(party.name, x, y + 23, {});
  }

  drawNode(node, index, time) {
    const place = this.places[index];
    if (!place) return;
    const { brush, colour } = this;
    const handover = this.timeline.handoverOf(index, time);
    const followed = index === this.followed;
    if (handover || followed) {
      brush.beginPath();
      brush.arc(place.x, place.y, followed ? 13 : 11, 0, 2 * Math.PI);
      this.stroke(handover ? colour.handover : colour.ink, 3);
    }
    brush.globalAlpha = this.followed >= 0 && !followed ? 0.45 : 1;
    brush.beginPath();
    brush.arc(place.x, place.y, this.nodes.length > MOST_NAMES ? 5 : 7, 0, 2 * Math.PI);
    brush.fillStyle = colour.ink;
    brush.fill();
    const named = this.nodes.length <= MOST_NAMES || followed;
    if (named || handover) {
      const what = handover ? `${node.name}: ${handover.kind} handover` : node.name;
      this.text(named ? what : node.name, place.x, place.y + 25, { weight: followed ? 700 : 500 });
    }
    brush.globalAlpha = 1;
  }

  drawMessages(time, pace) {
    const under = this.timeline.underWay(time);
    if (this.showData) {
      // Where a packet would be seen in one picture only, it would be nothing but a flicker.
      const seen = this.timeline.usual / (pace / 60);
      this.brush.globalAlpha = Math.max(0, Math.min(0.55, (seen - 3) / 20));
      for (const message of under) if (message.kind === "data") this.drawData(message, time);
    }
    const signals = under.filter((message) => message.kind !== "data");
    signals.sort((a, b) => this.concerns(b) - this.concerns(a));
    signals.forEach((message, order) => this.drawSignal(message, time, order));
    this.brush.globalAlpha = 1;
  }

  /** Whether a message has to do with the node that is followed (or nobody is). */
  concerns(message) {
    if (this.followed < 0) return true;
    const others = [message.from, message.to].filter((p) => p >= 0 && p < this.nodes.length);
    return others.length === 0 || others.includes(this.followed);
  }

  drawData(message, time) {
    const { place, fade } = this.whereIs(message, time);
    if (!place || fade <= 0) return;
    this.brush.beginPath();
    this.brush.arc(place.x, place.y, 2.4, 0, 2 * Math.PI);
    this.brush.fillStyle = this.colour.data;
    this.brush.fill();
  }

  drawSignal(message, time, order) {
    const { place, fade } = this.whereIs(message, time);
    if (!place) return;
    const { brush } = this;
    const colour = this.colour[family(message)];
    brush.globalAlpha = fade * (this.concerns(message) ? 1 : 0.25);
    brush.beginPath();
    brush.arc(place.x, place.y, 6, 0, 2 * Math.PI);
    brush.fillStyle = isAnswer(message) ? this.colour.ground : colour;
    brush.fill();
    this.stroke(colour, 2.5);
    if (message.received === null) this.cross(place, colour);
    if (order < MOST_LABELS) {
      this.text(caption(message), place.x, place.y - 12 - 14 * (order % 2), { colour, weight: 600 });
    }
  }

  /** Where a message is: `fade` is 1, and falls to 0 for a lost one, which gets half way. */
  whereIs(message, time) {
    let share = (time - message.sent) / Math.max(1e-9, message.gone - message.sent);
    if (message.kind === "dns" && !this.dnsAnswers) share = 1 - Math.abs(2 * share - 1);
    const way = [
      ...this.wayToCore(message.from, message.sent), this.core,
      ...this.wayToCore(message.to, message.received ?? message.sent).reverse(),
    ];
    if (message.received !== null) return { place: along(way, share), fade: 1 };
    return { place: along(way, share * 0.6), fade: Math.min(1, 2 * (1 - share)) };
  }

  cross({ x, y }, colour) {
    const { brush } = this;
    brush.beginPath();
    for (const [a, b] of [[-9, -9], [-9, 9]]) {
      brush.moveTo(x + a, y + b);
      brush.lineTo(x - a, y - b);
    }
    this.stroke(colour, 2);
  }

  line(from, to, colour, width) {
    this.brush.beginPath();
    this.brush.moveTo(from.x, from.y);
    this.brush.lineTo(to.x, to.y);
    this.stroke(colour, width);
  }

  stroke(colour, width) {
    this.brush.strokeStyle = colour;
    this.brush.lineWidth = width;
    this.brush.stroke();
  }

  /** Centred text with the ground around it, kept inside the picture. */
  text(text, x, y, { colour = this.colour.ink, weight = 500 }) {
    const { brush } = this;
    brush.font = `${weight} 12px ${this.font}`;
    brush.textAlign = "center";
    const half = brush.measureText(text).width / 2 + 3;
    const at = Math.max(half, Math.min(this.width - half, x));
    brush.strokeStyle = this.colour.ground;
    brush.lineWidth = 3;
    brush.lineJoin = "round";
    brush.strokeText(text, at, y);
    brush.fillStyle = colour;
    brush.fillText(text, at, y);
  }

  /** The node at a point of the picture, or -1. */
  hit(x, y) {
    let best = -1;
    let least = 18;
    (this.places ?? []).forEach((place, index) => {
      const off = place ? Math.hypot(place.x - x, place.y - y) : Infinity;
      if (off < least) [best, least] = [index, off];
    });
    return best;
  }
}

/** The point at a share of a way of straight pieces. */
function along(way, share) {
  const lengths = way.slice(1).map((to, i) => Math.hypot(to.x - way[i].x, to.y - way[i].y));
  let left = share * lengths.reduce((a, b) => a + b, 0);
  for (let i = 0; i < lengths.length; i += 1) {
    if (left <= lengths[i] && lengths[i] > 0) {
      const part = left / lengths[i];
      return {
        x: way[i].x + part * (way[i + 1].x - way[i].x),
        y: way[i].y + part * (way[i + 1].y - way[i].y),
      };
    }
    left -= lengths[i];
  }
  return way[way.length - 1];
}
