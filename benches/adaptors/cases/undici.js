// package: npm:undici@7
// behind: common, and so every adaptor; collections, fhir, ghana-nia, mailchimp, msgraph, rapidpro, wigal-sms
// does: GET, POST of JSON and several parts, gzip and a redirect by interceptors, a pool, a stream, a mock, an error's status, a timeout
import { Agent, FormData, MockAgent, Pool, fetch, interceptors, request } from 'undici';

export default [
  async ({ configuration: { http, closed } }) => {
    const got = await request(`${http}/echo/there`, { query: { q: 'a b' }, headers: { 'x-from': 'undici' } });
    const echo = await got.body.json();
    same([got.statusCode, echo.path, echo.query.q, echo.headers['x-from']], [200, '/echo/there', 'a b', 'undici']);
    const posted = await request(`${http}/echo`, { method: 'POST', body: JSON.stringify({ name: 'Amina' }) });
    same((await posted.body.json()).body, '{"name":"Amina"}');
    const form = new FormData();
    form.append('file', new Blob(['content']), 'a.txt');
    const parts = await (await (await request(`${http}/echo`, { method: 'POST', body: form })).body).json();
    same([parts.headers['content-type'].startsWith('multipart/form-data'), parts.body.includes('content')], [true, true]);
    const dispatcher = new Agent().compose(interceptors.redirect({ maxRedirections: 3 }), interceptors.decompress());
    same((await (await request(`${http}/gzip`, { dispatcher })).body.json()).patients.length, 2);
    same((await (await request(`${http}/redirect/2`, { dispatcher })).body.json()).path, '/redirect/0');
    const pool = new Pool(http, { connections: 2 });
    const paths = [1, 2, 3].map(n => pool.request({ path: `/echo/${n}`, method: 'GET' }).then(({ body }) => body.json()));
    same((await Promise.all(paths)).map(({ path }) => path), ['/echo/1', '/echo/2', '/echo/3']);
    await pool.close();
    let streamed = 0;
    for await (const chunk of (await request(`${http}/chunked`)).body) streamed += chunk.length;
    same(streamed, 47);
    same((await (await fetch(`${http}/gzip`)).json()).patients.length, 2);
    const mock = new MockAgent();
    mock.disableNetConnect();
    mock.get('https://example.org').intercept({ path: '/patients' }).reply(200, { patients: [] });
    same(await (await request('https://example.org/patients', { dispatcher: mock })).body.json(), { patients: [] });
    same((await request(`${http}/status/404`)).statusCode, 404);
    same((await failure(() => request(`${http}/slow/3000`, { headersTimeout: 50 }))).code, 'UND_ERR_HEADERS_TIMEOUT');
    same((await failure(() => request(`http://127.0.0.1:${closed}`))).code, 'ECONNREFUSED');
  },
];
