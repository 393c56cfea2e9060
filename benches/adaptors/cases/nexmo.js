// package: npm:nexmo@2.9.1
// behind: nexmo
// does: sends a message, an error's status, both against a stand-in
// answers: POST /sms/json 200 {"message-count":"1","messages":[{"status":"0","message-id":"1"}]}
// answers: GET /account/get-balance 401 {"error-code":"401"}
import Nexmo from 'nexmo';

export default [
  async ({ configuration: { service } }) => {
    const { hostname, port } = new URL(service);
    const client = new Nexmo({ apiKey: 'key', apiSecret: 'secret' }, { restHost: hostname, apiHost: hostname, port: +port });
    const called = call => new Promise((resolve, reject) => call((error, answer) => (error ? reject(error) : resolve(answer))));
    const sent = await called(done => client.message.sendSms('Clinic', '233200000000', 'Hello', done));
    same(sent.messages[0]['message-id'], '1');
    same((await failure(() => called(done => client.account.checkBalance(done)))).statusCode, 401);
    const [{ method, path, query }] = await seen(service);
    same([method, path, query.text, query.api_key], ['POST', '/sms/json', 'Hello', 'key']);
  },
];
