// Every refresh grant that a provider was asked for: of which session, from when to when, and when the connection that it came
// on ended. The session of a refresh token is known from the answer that it came with.
const wait = (ms) => new Promise((over) => setTimeout(over, ms));

export class Refreshes {
  #slow;
  #open = 0;
  #awaited = null;
  #answered = [];
  #sessions = new Map();
  #connections = new WeakMap();

  // Each grant takes a time between these two, in ms: half of it before it is given, half of it before that is told.
  constructor([least, most] = [0, 0]) {
    this.#slow = () => (least + Math.random() * (most - least)) / 2;
  }

  watch(provider) {
    provider.use(async (ctx, next) => {
      if (ctx.path !== '/token') return next();
      const grant = { arrived: Date.now(), connection: this.#connection(ctx.req.socket) };
      this.#open += 1;
      if (this.#open > 1) this.#awaited?.();
      try {
        await wait(this.#slow());
        await next();
        await wait(this.#slow());
        this.#note(grant, ctx);
      } finally {
        this.#open -= 1;
      }
    });
  }

  // As soon as several are under way.
  busy() {
    return new Promise((busy) => { this.#awaited = busy; });
  }

  #connection(socket) {
    if (!this.#connections.has(socket)) {
      const connection = { closed: null };
      socket.once('close', () => { connection.closed = Date.now(); });
      this.#connections.set(socket, connection);
    }
    return this.#connections.get(socket);
  }

  #note(grant, { oidc, status, body }) {
    const granted = status === 200;
    if (granted && body.refresh_token) this.#sessions.set(body.refresh_token, oidc.entities.Grant.jti);
    if (oidc?.params?.grant_type !== 'refresh_token') return;
    const token = oidc.params.refresh_token;
    this.#answered.push({ ...grant, granted, token, session: this.#sessions.get(token), answered: Date.now() });
  }

  // What was seen; of grants that came at `since` (ms since 1970) or later, how many, and how many at most at one time and in
  // one second.
  report(since) {
    const all = this.#answered;
    const later = all.filter(({ arrived }) => arrived >= since);
    const times = ({ arrived, answered, connection }) => ({ arrived, answered, closed: connection.closed });
    return {
      granted: all.filter(({ granted }) => granted).length,
      refused: all.filter(({ granted }) => !granted).length,
      // Granted, but whoever asked was gone before that was told.
      cut: all.filter(({ granted, answered, connection }) => granted && connection.closed !== null && connection.closed < answered).length,
      overlapping: pairs(all, 'session').filter(([before, next]) => next.arrived < before.answered).length,
      // A refresh token that was shown twice.
      reused: pairs(all, 'token').map(([first, again]) => ({ first: times(first), again: times(again) })),
      // Sessions that had a grant since then, or were refused one at any time.
      settled: new Set([...later, ...all.filter(({ granted }) => !granted)].map(({ session }) => session)).size,
      lately: later.length,
      at_once: mostAtOnce(later),
      in_a_second: Math.max(0, ...counted(later.map(({ arrived }) => Math.floor((arrived - since) / 1000))).values()),
    };
  }
}

// Neighbours in time of the same `key`.
function pairs(grants, key) {
  const last = new Map();
  const found = [];
  for (const grant of [...grants].sort((one, other) => one.arrived - other.arrived)) {
    if (last.has(grant[key])) found.push([last.get(grant[key]), grant]);
    last.set(grant[key], grant);
  }
  return found;
}

function counted(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function mostAtOnce(grants) {
  const steps = grants.flatMap(({ arrived, answered }) => [[arrived, 1], [answered, -1]]);
  let [now, most] = [0, 0];
  for (const [, step] of steps.sort(([one, up], [other, down]) => one - other || up - down)) {
    now += step;
    most = Math.max(most, now);
  }
  return most;
}
