// A real OpenID provider on loopback, for the capability tests.
//
//   node provider.mjs '{"clients": [...], "users": {"alice": {"email": "...", ...}}, "auto": "alice"}'
//
// Prints {"issuer": "..."} once it listens, and ends when its standard input does. Users sign in with a form of one
// field, or at once as `auto`. GET /_log tells what it was asked and what it issued.
import http from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const log = { requests: [], issued: [] };
const server = http.createServer();
await new Promise((listening) => server.listen(settings.port ?? 0, '127.0.0.1', listening));
const issuer = settings.issuer ?? `http://127.0.0.1:${server.address().port}`;

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const provider = new Provider(issuer, {
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
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope('openid email profile offline_access');
    await grant.save();
    return grant;
  },
});
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
server.on('request', (request, response) => {
  if (request.url === '/_log') {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(log));
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

process.stdin.on('end', () => process.exit(0)).resume();
console.log(JSON.stringify({ issuer }));
