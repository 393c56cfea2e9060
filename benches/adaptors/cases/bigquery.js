// package: npm:@google-cloud/bigquery@5
// behind: bigquery
// does: queries, inserts rows, an error's status, all against a stand-in
// answers: POST /bigquery/v2/projects/clinic/jobs 200 {"jobReference":{"projectId":"clinic","jobId":"1"},"status":{"state":"DONE"}}
// answers: GET /bigquery/v2/projects/clinic/queries/1 200 {"jobComplete":true,"schema":{"fields":[{"name":"name","type":"STRING"},{"name":"n","type":"INTEGER"}]},"rows":[{"f":[{"v":"Amina"},{"v":"1"}]}]}
// answers: POST /bigquery/v2/projects/clinic/datasets/visits/tables/all/insertAll 200 {}
// answers: GET /bigquery/v2/projects/clinic/datasets/absent 404 {"error":{"code":404,"message":"Not found: absent"}}
import { BigQuery } from '@google-cloud/bigquery';

export default [
  async ({ configuration: { service } }) => {
    const client = new BigQuery({ projectId: 'clinic', apiEndpoint: service });
    const [rows] = await client.query({ query: 'SELECT name, n FROM visits.all WHERE n = @n', params: { n: 1 }, jobId: '1' });
    same(rows, [{ name: 'Amina', n: 1 }]);
    await client.dataset('visits').table('all').insert([{ name: 'Kofi' }]);
    same((await failure(() => client.dataset('absent').get())).code, 404);
    const requests = await seen(service);
    same(JSON.parse(requests[0].body).configuration.query.queryParameters[0].parameterValue, { value: 1 });
    same(JSON.parse(requests.find(({ path }) => path.endsWith('insertAll')).body).rows[0].json, { name: 'Kofi' });
  },
];
