// package: npm:axios
// behind: dhis2, godata, mailchimp
// does: GET, POST of JSON, a form and several parts, gzip, a redirect, an error's status, a timeout, a refused connection
import axios from 'axios';

export default [
  async ({ configuration: { http, closed } }) => {
    const client = axios.create({ baseURL: http, headers: { 'x-from': 'axios' } });
    const got = await client.get('/echo/there', { params: { q: 'a b', list: [1, 2] } });
    same([got.status, got.data.path, got.data.query.q, got.data.headers['x-from']], [200, '/echo/there', 'a b', 'axios']);
    const posted = await client.post('/echo', { name: 'Amina' });
    same([posted.data.method, posted.data.body], ['POST', '{"name":"Amina"}']);
    const form = await client.post('/echo', new URLSearchParams({ a: '1 2' }));
    same([form.data.body, form.data.headers['content-type'].split(';')[0]], ['a=1+2', 'application/x-www-form-urlencoded']);
    const parts = await client.postForm('/echo', { file: Buffer.from('content'), field: 'value' });
    same([parts.data.headers['content-type'].startsWith('multipart/form-data'), parts.data.body.includes('content')], [true, true]);
    same((await client.get('/gzip')).data.patients.length, 2);
    same((await client.get('/redirect/3')).data.path, '/redirect/0');
    same(Buffer.from((await client.get('/bytes', { responseType: 'arraybuffer' })).data).length, 256);
    let streamed = 0;
    for await (const chunk of (await client.get('/chunked', { responseType: 'stream' })).data) streamed += chunk.length;
    same(streamed, 47);
    const missing = await failure(() => client.get('/status/404'));
    same([missing.response.status, missing.response.data.error], [404, 'the server says 404']);
    same((await failure(() => client.get('/slow/2000', { timeout: 50 }))).code, 'ECONNABORTED');
    same((await failure(() => axios.get(`http://127.0.0.1:${closed}`))).code, 'ECONNREFUSED');
  },
];
