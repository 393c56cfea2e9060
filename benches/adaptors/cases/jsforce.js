// package: @jsforce/jsforce-node
// behind: salesforce
// does: a login that is refused and a query with a token, both against the echo
// only loads: Salesforce is on the internet
import jsforce from '@jsforce/jsforce-node';

export default [
  async ({ configuration: { http } }) => {
    const connection = new jsforce.Connection({ loginUrl: `${http}/echo` });
    const error = await failure(() => connection.login('nurse', 'secret'));
    same(typeof error.message, 'string');
    const known = new jsforce.Connection({ instanceUrl: `${http}/echo`, accessToken: 'token', version: '60.0' });
    const answer = await known.request('/services/data/v60.0/sobjects');
    same([answer.path, answer.headers.authorization], ['/echo/services/data/v60.0/sobjects', 'Bearer token']);
    same(known.sobject('Account').find({ Name: 'x' }).limit(1).toString?.() !== undefined, true);
  },
];
