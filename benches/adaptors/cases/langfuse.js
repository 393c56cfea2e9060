// package: npm:@langfuse/client@5
// behind: langfuse
// does: reads a prompt and fills it in, an error's status, both against a stand-in
// answers: GET /api/public/v2/prompts/greeting 200 {"name":"greeting","version":1,"type":"text","prompt":"Hello {{name}}","config":{},"labels":[],"tags":[]}
// answers: GET /api/public/v2/prompts/absent 404 {"message":"Prompt not found"}
import { LangfuseClient } from '@langfuse/client';

export default [
  async ({ configuration: { service } }) => {
    const client = new LangfuseClient({ publicKey: 'public', secretKey: 'secret', baseUrl: service });
    same((await client.prompt.get('greeting')).compile({ name: 'Amina' }), 'Hello Amina');
    same((await failure(() => client.prompt.get('absent', { maxRetries: 0 }))).message.includes('not found'), true);
    const [asked] = await seen(service);
    same(asked.headers.authorization, `Basic ${btoa('public:secret')}`);
  },
];
