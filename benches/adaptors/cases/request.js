// package: npm:request@2.88.2
// behind: dynamics, facebook, khanacademy, magpi, maximo, medicmobile, mogli, primero, resourcemap, vtiger
// does: GET, POST of JSON, a form and several parts, gzip, a redirect, basic auth, cookies, a stream, an error's status, a timeout
import request from 'request';

const send = options =>
  new Promise((resolve, reject) => request(options, (error, response) => (error ? reject(error) : resolve(response))));

export default [
  async ({ configuration: { http, closed } }) => {
    const got = await send({ url: `${http}/echo/there`, qs: { q: 'a b' }, headers: { 'x-from': 'request' }, json: true });
    same([got.statusCode, got.body.path, got.body.query.q, got.body.headers['x-from']], [200, '/echo/there', 'a b', 'request']);
    const posted = await send({ method: 'POST', url: `${http}/echo`, json: { name: 'Amina' } });
    same([posted.body.method, posted.body.body], ['POST', '{"name":"Amina"}']);
    const form = await send({ method: 'POST', url: `${http}/echo`, form: { a: '1 2' }, json: true });
    same(form.body.body, 'a=1%202');
    const file = { value: Buffer.from('content'), options: { filename: 'a.txt' } };
    const parts = await send({ method: 'POST', url: `${http}/echo`, formData: { field: 'value', file }, json: true });
    same([parts.body.headers['content-type'].startsWith('multipart/form-data'), parts.body.body.includes('content')], [true, true]);
    same((await send({ url: `${http}/gzip`, gzip: true, json: true })).body.patients.length, 2);
    same((await send({ url: `${http}/redirect/2`, json: true })).body.path, '/redirect/0');
    same((await send({ url: `${http}/bytes`, encoding: null })).body.length, 256);
    const auth = { user: 'nurse', pass: 'cr3dential-of-the-nurse', sendImmediately: false };
    same((await send({ url: `${http}/basic`, auth, json: true })).body, { user: 'nurse' });
    const jar = request.jar();
    await send({ url: `${http}/cookies`, jar });
    same((await send({ url: `${http}/echo`, jar, json: true })).body.headers.cookie.includes('theme=dark'), true);
    let streamed = 0;
    await new Promise((resolve, reject) => {
      const stream = request(`${http}/chunked`);
      stream.on('data', chunk => (streamed += chunk.length)).on('end', resolve).on('error', reject);
    });
    same(streamed, 47);
    same((await send({ url: `${http}/status/404`, json: true })).statusCode, 404);
    same((await failure(() => send({ url: `${http}/slow/2000`, timeout: 50 }))).code, 'ESOCKETTIMEDOUT');
    same((await failure(() => send(`http://127.0.0.1:${closed}`))).code, 'ECONNREFUSED');
  },
];
