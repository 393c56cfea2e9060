// package: npm:mailgun.js@9
// behind: mailgun
// does: sends a message with a file, an error's status, both against a stand-in
// answers: POST /v3/example.org/messages 200 {"id":"<1@example.org>","message":"Queued. Thank you."}
// answers: GET /v3/domains/absent 404 {"message":"Domain not found"}
import Mailgun from 'mailgun.js';

export default [
  async ({ configuration: { service } }) => {
    const client = new Mailgun(FormData).client({ username: 'api', key: 'key', url: service });
    const message = { from: 'nurse@example.org', to: ['amina@example.org'], subject: 'Visit', text: 'Tomorrow', attachment: { filename: 'a.txt', data: Buffer.from('content') } };
    same((await client.messages.create('example.org', message)).status, 200);
    same((await failure(() => client.domains.get('absent'))).status, 404);
    const [sent] = await seen(service);
    same([sent.headers.authorization, sent.body.includes('Tomorrow'), sent.body.includes('content')], [`Basic ${btoa('api:key')}`, true, true]);
  },
];
