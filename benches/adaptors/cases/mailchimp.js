// package: npm:@mailchimp/mailchimp_marketing@3
// behind: mailchimp
// does: pings, adds a member, an error's status, all against a stand-in
// answers: GET /3.0/ping 200 {"health_status":"Everything's Chimpy!"}
// answers: POST /3.0/lists/visits/members 200 {"id":"1","email_address":"amina@example.org"}
// answers: GET /3.0/lists/absent 404 {"status":404,"title":"Resource Not Found"}
import mailchimp from '@mailchimp/mailchimp_marketing';

export default [
  async ({ configuration: { service } }) => {
    mailchimp.setConfig({ apiKey: 'key', server: 'us1' });
    mailchimp.basePath = `${service}/3.0`;
    same((await mailchimp.ping.get()).health_status, "Everything's Chimpy!");
    const member = { email_address: 'amina@example.org', status: 'subscribed' };
    same((await mailchimp.lists.addListMember('visits', member)).id, '1');
    same((await failure(() => mailchimp.lists.getList('absent'))).status, 404);
    const [, added] = await seen(service);
    same([added.headers.authorization, JSON.parse(added.body)], [`Basic ${btoa('user:key')}`, member]);
  },
];
