// package: npm:sync-request@6
// behind: mailgun
// does: a GET that waits for its answer
// fails: it starts Node as a second process, while it loads; a run may start none
import request from 'sync-request';

export default [({ configuration: { http } }) => same(request('GET', `${http}/status/404`).statusCode, 404)];
