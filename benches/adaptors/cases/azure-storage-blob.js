// package: npm:@azure/storage-blob@12
// behind: azure-storage
// does: uploads, downloads and lists a blob, an error's status, all against a stand-in
// answers: PUT /account/clinic/patients.csv 201
// answers: GET /account/clinic/patients.csv 200 name,age
// answers: GET /account/clinic 200 <?xml version="1.0"?><EnumerationResults><Blobs><Blob><Name>patients.csv</Name><Properties><Content-Length>8</Content-Length></Properties></Blob></Blobs></EnumerationResults>
// answers: GET /account/clinic/absent.csv 404 <?xml version="1.0"?><Error><Code>BlobNotFound</Code><Message>There is no such blob.</Message></Error>
import { BlobServiceClient, StorageSharedKeyCredential } from '@azure/storage-blob';

export default [
  async ({ configuration: { service } }) => {
    const credential = new StorageSharedKeyCredential('account', Buffer.from('secret').toString('base64'));
    const container = new BlobServiceClient(`${service}/account`, credential).getContainerClient('clinic');
    const blob = container.getBlockBlobClient('patients.csv');
    await blob.upload('name,age', 8, { blobHTTPHeaders: { blobContentType: 'text/csv' } });
    same((await blob.downloadToBuffer(0, 8)).toString(), 'name,age');
    let text = '';
    for await (const chunk of (await blob.download()).readableStreamBody) text += chunk;
    same(text, 'name,age');
    const blobs = [];
    for await (const { name, properties } of container.listBlobsFlat()) blobs.push([name, properties.contentLength]);
    same(blobs, [['patients.csv', 8]]);
    same((await failure(() => container.getBlockBlobClient('absent.csv').download())).statusCode, 404);
    const put = (await seen(service)).find(({ method }) => method === 'PUT');
    same([put.headers.authorization.startsWith('SharedKey account:'), put.headers['x-ms-blob-content-type'], put.body], [true, 'text/csv', 'name,age']);
  },
];
