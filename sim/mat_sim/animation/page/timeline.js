// Time: when everything happens, what is under way at a time, and how fast time should pass.
//
// Messages take milliseconds, movement takes minutes. So the pace follows what happens: near a
// message of a handover time passes so slowly that the message can be watched, and the further from
// the next or the last such moment, the faster. With distance d from it (in simulated seconds),
// the pace is SLOW + APPROACH * d, at most FAST: a way of d takes ln(1 + d * APPROACH / SLOW) /
// APPROACH seconds to watch, whatever d, and there is no jump in it.

/** Seconds of watching that a message of usual length takes. */
const WATCHED = 1;
/** Growth of the pace with the distance from what is worth watching, per second of watching. */
const APPROACH = 4;
/** Signalling outside of handovers is watched this many times quicker. */
const ASIDE = 12;
/** Seconds that idle times, and busy ones, may take to watch altogether. */
const IDLE_TOTAL = 15;
const BUSY_TOTAL = 120;

/** Index of the first of `count` items for which `holds`, which once true stays true. */
function firstWhere(count, holds) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Messages and handovers of a scene, by time. */
class Timeline {
  constructor(data) {
    this.begin = data.begin;
    this.end = data.end;
    this.messages = data.messages.map(([sent, received, from, to, label, kind, step], index) => (
      { index, sent, received, from, to, label: data.labels[label], kind, step }));
    this.signals = this.messages.filter((message) => message.kind !== "data");
    this.handovers = data.handovers.map(([node, kind, begin, end, outcome]) => (
      { node, kind, begin, end: end ?? this.endOfOpen(data, node, begin), complete: end !== null, outcome }));
    this.setFlights();
  }

  /** A handover that was not completed ends where the node's next one begins. */
  endOfOpen(data, node, begin) {
    const next = data.handovers.find((row) => row[0] === node && row[2] > begin);
    return next ? next[2] : data.end;
  }

  /** When each message is last seen: a lost one fades at about the time it would have arrived. */
  setFlights() {
    const known = this.messages.filter((m) => m.received !== null).map((m) => m.received - m.sent);
    this.usual = known.length ? Math.max(1e-6, median(known)) : 0.01;
    this.longest = 0;
    for (const message of this.messages) {
      message.gone = message.received ?? message.sent + this.usual;
      message.middle = (message.sent + message.gone) / 2;
      this.longest = Math.max(this.longest, message.gone - message.sent);
    }
  }

  /** Messages under way at a time, by time of sending. */
  underWay(time) {
    const found = [];
    const { messages } = this;
    let index = firstWhere(messages.length, (i) => messages[i].sent >= time - this.longest);
    for (; index < messages.length && messages[index].sent <= time; index += 1) {
      if (messages[index].gone >= time) found.push(messages[index]);
    }
    return found;
  }

  /** The last `count` signalling messages sent up to a time that are `wanted`, latest first. */
  latest(time, count, wanted) {
    const found = [];
    let index = firstWhere(this.signals.length, (i) => this.signals[i].sent > time) - 1;
    for (; index >= 0 && found.length < count; index -= 1) {
      if (wanted(this.signals[index])) found.push(this.signals[index]);
    }
    return found;
  }

  /** The handover that a node is in, if any. */
  handoverOf(node, time) {
    return this.handovers.find((h) => h.node === node && h.begin <= time && time <= h.end);
  }
}

/** How many simulated seconds a second of watching is, at any time. */
class Pace {
  /** `wanted` says of a message or a handover whether it is worth slowing down for. */
  constructor(timeline, wanted) {
    const handovers = timeline.handovers.filter(wanted);
    const near = (m) => handovers.some((h) => h.begin <= m.sent && m.sent <= h.end);
    const signals = timeline.signals.filter(wanted);
    const within = signals.filter(near).map((m) => [m.sent, m.gone]);
    const moments = handovers.map((h) => [h.begin, h.begin + timeline.usual]);
    const aside = signals.filter((m) => !near(m)).map((m) => [m.sent, m.gone]);
    this.busy = merged([...within, ...moments], 2 * timeline.usual);
    this.aside = merged(aside, 2 * timeline.usual);
    const total = this.busy.reduce((sum, [from, to]) => sum + to - from, 0);
    this.slow = Math.max(timeline.usual / WATCHED, total / BUSY_TOTAL);
    this.fast = Math.max(1, (timeline.end - timeline.begin) / IDLE_TOTAL, 2 * this.slow);
  }

  at(time) {
    const main = this.slow + APPROACH * distance(this.busy, time);
    const aside = ASIDE * this.slow + APPROACH * distance(this.aside, time);
    return Math.min(this.fast, main, aside);
  }

  /** The time after `seconds` of watching from `time`, in steps too small to leap over anything. */
  after(time, seconds) {
    const steps = Math.max(1, Math.ceil(seconds / 0.004));
    let now = time;
    for (let step = 0; step < steps; step += 1) now += (this.at(now) * seconds) / steps;
    return now;
  }
}

/** Intervals in order, joined where they are no more than `gap` apart. */
function merged(intervals, gap) {
  const joined = [];
  for (const [from, to] of intervals.sort((a, b) => a[0] - b[0])) {
    const last = joined[joined.length - 1];
    if (last && from <= last[1] + gap) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/** Distance of a time from the nearest of some intervals in order. */
function distance(intervals, time) {
  const after = firstWhere(intervals.length, (i) => intervals[i][0] > time);
  const ahead = after < intervals.length ? intervals[after][0] - time : Infinity;
  const behind = after > 0 ? Math.max(0, time - intervals[after - 1][1]) : Infinity;
  return Math.min(ahead, behind);
}
