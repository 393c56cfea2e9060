// package: npm:twilio@3
// behind: twilio
// does: sends a message, an error's code, both against a stand-in; checks a webhook's signature
// answers: POST /2010-04-01/Accounts/AC1/Messages.json 201 {"sid":"SM1","status":"queued","body":"Hello"}
// answers: GET /2010-04-01/Accounts/AC1/Messages/absent.json 404 {"code":20404,"message":"not found","status":404}
import twilio from 'twilio';

// The one way to another server that it leaves open.
class Elsewhere extends twilio.RequestClient {
  constructor(service) {
    super();
    this.service = service;
  }

  request(options) {
    return super.request({ ...options, uri: options.uri.replace('https://api.twilio.com', this.service) });
  }
}

export default [
  async ({ configuration: { service } }) => {
    const client = twilio('AC1', 'token', { httpClient: new Elsewhere(service) });
    const { sid, status } = await client.messages.create({ to: '+233200000000', from: '+15005550006', body: 'Hello' });
    same([sid, status], ['SM1', 'queued']);
    same((await failure(() => client.messages('absent').fetch())).code, 20404);
    const [sent] = await seen(service);
    same([sent.headers.authorization, sent.body], [`Basic ${btoa('AC1:token')}`, 'To=%2B233200000000&From=%2B15005550006&Body=Hello']);
    same(twilio.validateRequest('token', 'wrong', 'https://example.org', {}), false);
  },
];
