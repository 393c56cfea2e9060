// package: npm:frappe-js-sdk@1
// behind: erpnext
// does: lists, creates, an error's status, all against a stand-in
// answers: GET /api/resource/Patient 200 {"data":[{"name":"Amina"}]}
// answers: POST /api/resource/Patient 200 {"data":{"name":"Kofi"}}
// answers: GET /api/resource/Patient/absent 404 {"exception":"DoesNotExistError"}
import { FrappeApp } from 'frappe-js-sdk';

export default [
  async ({ configuration: { service } }) => {
    const db = new FrappeApp(service, { useToken: true, token: () => 'key:secret', type: 'token' }).db();
    same(await db.getDocList('Patient', { fields: ['name'], limit: 1 }), [{ name: 'Amina' }]);
    same(await db.createDoc('Patient', { name: 'Kofi' }), { name: 'Kofi' });
    same((await failure(() => db.getDoc('Patient', 'absent'))).httpStatus, 404);
    const [listed, created] = await seen(service);
    same([listed.headers.authorization, listed.query.fields, JSON.parse(created.body)], ['token key:secret', '["name"]', { name: 'Kofi' }]);
  },
];
