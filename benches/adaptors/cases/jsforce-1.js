// package: npm:jsforce@1
// behind: mogli
// does: logs in, queries, follows a page, creates a record, an error's code, a refused login, all against a stand-in
// answers: POST /services/Soap/u/60.0 200 <?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><loginResponse><result><serverUrl>SERVICE/services/Soap/u/60.0/org</serverUrl><sessionId>session</sessionId><userId>user</userId><userInfo><organizationId>org</organizationId></userInfo></result></loginResponse></soapenv:Body></soapenv:Envelope>
// answers: POST /services/Soap/u/59.0 500 <?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><soapenv:Fault><faultcode>INVALID_LOGIN</faultcode><faultstring>Who are you?</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>
// answers: GET /services/data/v60.0/query 200 {"totalSize":2,"done":false,"nextRecordsUrl":"/services/data/v60.0/query/next","records":[{"Name":"Amina"}]}
// answers: GET /services/data/v60.0/query/next 200 {"totalSize":2,"done":true,"records":[{"Name":"Kofi"}]}
// answers: POST /services/data/v60.0/sobjects/Patient__c 201 {"id":"1","success":true,"errors":[]}
// answers: GET /services/data/v60.0/sobjects/Patient__c/absent 404 [{"errorCode":"NOT_FOUND","message":"There is no such record."}]
import jsforce from 'jsforce';

export default [
  async ({ configuration: { service } }) => {
    const connection = new jsforce.Connection({ loginUrl: service, version: '60.0' });
    const { id, organizationId } = await connection.login('nurse', 'secret');
    same([id, organizationId, connection.accessToken], ['user', 'org', 'session']);
    const first = await connection.query('SELECT Name FROM Patient__c');
    const next = await connection.queryMore(first.nextRecordsUrl);
    same([...first.records, ...next.records].map(({ Name }) => Name), ['Amina', 'Kofi']);
    same((await connection.sobject('Patient__c').create({ Name: 'Ama' })).id, '1');
    same((await failure(() => connection.sobject('Patient__c').retrieve('absent'))).errorCode, 'NOT_FOUND');
    const refused = new jsforce.Connection({ loginUrl: service, version: '59.0' });
    same((await failure(() => refused.login('nurse', 'wrong'))).message.includes('Who are you?'), true);
    const query = (await seen(service)).find(({ path }) => path.endsWith('/query'));
    same([query.headers.authorization, query.query.q], ['Bearer session', 'SELECT Name FROM Patient__c']);
  },
];
