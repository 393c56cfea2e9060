// package: npm:minio@8
// behind: minio
// does: puts, gets, lists and removes an object, signs an address, an error's code, all against a stand-in
// answers: HEAD /clinic 200
// answers: PUT /clinic/patients.csv 200
// answers: GET /clinic/patients.csv 200 name,age
// answers: GET /clinic 200 <ListBucketResult><Name>clinic</Name><IsTruncated>false</IsTruncated><Contents><Key>patients.csv</Key><LastModified>2026-01-02T03:04:05Z</LastModified><ETag>"e"</ETag><Size>8</Size></Contents></ListBucketResult>
// answers: DELETE /clinic/patients.csv 204
// answers: GET /clinic/absent.csv 404 <Error><Code>NoSuchKey</Code><Message>There is no such key.</Message></Error>
import { Client } from 'minio';

export default [
  async ({ configuration: { service } }) => {
    const { hostname: endPoint, port } = new URL(service);
    const client = new Client({ endPoint, port: +port, useSSL: false, accessKey: 'nurse', secretKey: 'secret', region: 'us-east-1' });
    same(await client.bucketExists('clinic'), true);
    await client.putObject('clinic', 'patients.csv', Buffer.from('name,age'), undefined, { 'Content-Type': 'text/csv' });
    let text = '';
    for await (const chunk of await client.getObject('clinic', 'patients.csv')) text += chunk;
    same(text, 'name,age');
    const objects = [];
    for await (const { name, size } of client.listObjectsV2('clinic', '', true)) objects.push([name, size]);
    same(objects, [['patients.csv', 8]]);
    await client.removeObject('clinic', 'patients.csv');
    same((await client.presignedGetObject('clinic', 'patients.csv', 60)).includes('X-Amz-Signature='), true);
    same((await failure(() => client.getObject('clinic', 'absent.csv'))).code, 'NoSuchKey');
    const put = (await seen(service)).find(({ method }) => method === 'PUT');
    same([put.headers.authorization.startsWith('AWS4-HMAC-SHA256'), put.headers['content-type'], put.body], [true, 'text/csv', 'name,age']);
  },
];
