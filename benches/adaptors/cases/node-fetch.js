// package: npm:node-fetch@2 npm:node-fetch@3
// behind 2: salesforce
// behind 3: none yet; widely used
// does: GET, POST of JSON, gzip, a redirect, a stream, an error's status, a refused connection
import fetch, { Headers } from 'node-fetch';

export default [
  async ({ configuration: { http, closed } }) => {
    const got = await (await fetch(`${http}/echo/there?q=1`, { headers: new Headers({ 'x-from': 'node-fetch' }) })).json();
    same([got.path, got.query.q, got.headers['x-from']], ['/echo/there', '1', 'node-fetch']);
    const body = JSON.stringify({ name: 'Amina' });
    const posted = await (await fetch(`${http}/echo`, { method: 'POST', body })).json();
    same([posted.method, posted.body], ['POST', body]);
    same((await (await fetch(`${http}/gzip`)).json()).patients.length, 2);
    const moved = await fetch(`${http}/redirect/2`);
    same([moved.redirected ?? moved.url.endsWith('/redirect/0'), (await moved.json()).path], [true, '/redirect/0']);
    same((await (await fetch(`${http}/bytes`)).arrayBuffer()).byteLength, 256);
    let streamed = 0;
    for await (const chunk of (await fetch(`${http}/chunked`)).body) streamed += chunk.length;
    same(streamed, 47);
    const missing = await fetch(`${http}/status/404`);
    same([missing.ok, missing.status], [false, 404]);
    same((await failure(() => fetch(`http://127.0.0.1:${closed}`))).code, 'ECONNREFUSED');
  },
];
