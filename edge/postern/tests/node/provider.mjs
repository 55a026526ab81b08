// A real OpenID provider on loopback, for the capability tests.
//
//   node provider.mjs '{"clients": [...], "users": {"alice": {"email": "...", ...}}, "auto": "alice"}'
//
// Prints {"issuer": "..."} once it listens, and ends when its standard input does. Users sign in with a form of one
// field, or at once as `auto`. GET /_log tells what it was asked and what it issued, GET /_refreshes?since=MS what it saw of
// refreshes (refreshes.mjs). With `rotates` every refresh token is good for one use, and a second use ends its grant.
//
// A line on the standard input makes it refuse connections (`refuse`, once what is under way is answered), take them and
// never answer (`hang`), or serve again (`serve`); it says the word back when that is so. To `busy` it does as soon as several
// grants are under way.
import http from 'node:http';
import { createInterface } from 'node:readline';
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider from 'oidc-provider';
// The provider's own memory forgets all but a thousand things.
import Memory from './node_modules/oidc-provider/lib/adapters/memory_adapter.js';
import { Refreshes } from './refreshes.mjs';

const settings = JSON.parse(process.argv[2]);
const log = { requests: [], issued: [], unanswered: 0 };
const server = http.createServer();
const listen = (port) => new Promise((listening) => server.listen(port, '127.0.0.1', listening));
await listen(settings.port ?? 0);
const { port } = server.address();
const issuer = settings.issuer ?? `http://127.0.0.1:${port}`;

// By way of PEM: node 20 waits for ever if it collects a pair's garbage while the pair's own key becomes a JWK.
const { privateKey: pem } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
const signingKey = createPrivateKey(pem).export({ format: 'jwk' });
const memory = new Map();
const provider = new Provider(issuer, {
  adapter: (model) => new Memory(model, memory),
  clients: settings.clients,
  jwks: { keys: [{ ...signingKey, use: 'sig', alg: 'RS256', kid: 'first' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'groups'],
  },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  ttl: settings.ttl ?? { AccessToken: 3600, AuthorizationCode: 60, IdToken: 3600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        ctx.body = page(`${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
    },
  },
  findAccount: (_, sub) => settings.users[sub] && {
    accountId: sub,
    claims: () => ({ sub, email_verified: true, ...settings.users[sub] }),
  },
  ...(settings.rotates && { rotateRefreshToken: true }),
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope('openid email profile offline_access');
    await grant.save();
    return grant;
  },
});
const refreshes = new Refreshes(settings.slow);
refreshes.watch(provider);
provider.on('grant.success', (ctx) => log.issued.push(ctx.body));
provider.on('server_error', (_, error) => console.error(error));

const page = (body) => `<!doctype html><html lang="en"><title>Test provider</title><body>${body}</body></html>`;

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

async function interact(request, response) {
  const { uid } = await provider.interactionDetails(request, response);
  const user = request.method === 'POST' ? (await bodyOf(request)).get('user') : settings.auto;
  if (user == null) {
    response.setHeader('content-type', 'text/html');
    response.end(page(`<form method="post" action="/interaction/${uid}">
      <label>User <input name="user" autofocus></label><button id="sign-in">Sign in</button></form>`));
    return;
  }
  const result = settings.users[user] ? { login: { accountId: user } } : { error: 'access_denied', error_description: 'no such user' };
  await provider.interactionFinished(request, response, result);
}

const serve = provider.callback();
let hangs = false;
server.on('request', (request, response) => {
  const { pathname, searchParams } = new URL(request.url, issuer);
  const told = { '/_log': () => log, '/_refreshes': () => refreshes.report(Number(searchParams.get('since'))) }[pathname];
  if (told) {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(told()));
    return;
  }
  if (hangs) {
    log.unanswered += 1;
    return;
  }
  log.requests.push({ method: request.method, target: request.url });
  if (!request.url.startsWith('/interaction/')) {
    serve(request, response);
    return;
  }
  interact(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});

const becomes = {
  busy: () => refreshes.busy(),
  hang: () => { hangs = true; },
  async refuse() {
    const idle = setInterval(() => server.closeIdleConnections(), 10);
    await new Promise((closed) => server.close(closed));
    clearInterval(idle);
  },
  async serve() {
    hangs = false;
    if (!server.listening) await listen(port);
  },
};

console.log(JSON.stringify({ issuer }));
for await (const word of createInterface({ input: process.stdin })) {
  await becomes[word]();
  console.log(word);
}
process.exit(0);
