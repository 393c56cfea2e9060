// package: npm:superagent@3 npm:superagent@8
// behind 3: cartodb, telerivet, zoho
// behind 8: beyonic, magpi
// does: GET, POST of JSON, a form and several parts, gzip, a redirect, basic auth, an error's status, a timeout, a refused connection
import superagent from 'superagent';

export default [
  async ({ configuration: { http, closed } }) => {
    const got = await superagent.get(`${http}/echo/there`).query({ q: 'a b' }).set('x-from', 'superagent');
    same([got.status, got.body.path, got.body.query.q, got.body.headers['x-from']], [200, '/echo/there', 'a b', 'superagent']);
    const posted = await superagent.post(`${http}/echo`).send({ name: 'Amina' });
    same([posted.body.method, posted.body.body], ['POST', '{"name":"Amina"}']);
    const form = await superagent.post(`${http}/echo`).type('form').send({ a: '1 2' });
    same(form.body.body, 'a=1%202');
    const parts = await superagent.post(`${http}/echo`).field('field', 'value').attach('file', Buffer.from('content'), 'a.txt');
    same([parts.body.headers['content-type'].startsWith('multipart/form-data'), parts.body.body.includes('content')], [true, true]);
    same((await superagent.get(`${http}/gzip`)).body.patients.length, 2);
    same((await superagent.get(`${http}/redirect/2`)).body.path, '/redirect/0');
    same((await superagent.get(`${http}/bytes`).buffer(true).parse(superagent.parse.image)).body.length, 256);
    same((await superagent.get(`${http}/basic`).auth('nurse', 'cr3dential-of-the-nurse')).body, { user: 'nurse' });
    const missing = await failure(() => superagent.get(`${http}/status/404`));
    same([missing.status, missing.response.body.error], [404, 'the server says 404']);
    same((await failure(() => superagent.get(`${http}/slow/2000`).timeout(50))).code, 'ECONNABORTED');
    same((await failure(() => superagent.get(`http://127.0.0.1:${closed}`))).code, 'ECONNREFUSED');
  },
];
