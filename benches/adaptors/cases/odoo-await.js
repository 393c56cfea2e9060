// package: npm:odoo-await@3
// behind: odoo, openspp
// does: logs in and searches by XML-RPC, all against a stand-in
// answers: POST /xmlrpc/2/common 200 <?xml version="1.0"?><methodResponse><params><param><value><int>7</int></value></param></params></methodResponse>
// answers: POST /xmlrpc/2/object 200 <?xml version="1.0"?><methodResponse><params><param><value><array><data><value><struct><member><name>name</name><value><string>Amina</string></value></member></struct></value></data></array></value></param></params></methodResponse>
import Odoo from 'odoo-await';

export default [
  async ({ configuration: { service, closed } }) => {
    const { origin, port } = new URL(service);
    const odoo = new Odoo({ baseUrl: origin, port: +port, db: 'clinic', username: 'nurse', password: 'secret' });
    same(await odoo.connect(), 7);
    same(await odoo.searchRead('res.partner', { name: 'Amina' }, ['name']), [{ name: 'Amina' }]);
    const [login, search] = await seen(service);
    same([login.body.includes('<methodName>authenticate</methodName>'), search.body.includes('res.partner')], [true, true]);
    const nowhere = new Odoo({ baseUrl: 'http://127.0.0.1', port: closed, db: 'clinic', username: 'nurse', password: 'secret' });
    same((await failure(() => nowhere.connect())).code, 'ECONNREFUSED');
  },
];
