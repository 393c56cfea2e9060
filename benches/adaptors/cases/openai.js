// package: npm:openai@4
// behind: chatgpt
// does: a completion, the same as a stream of events, a file in several parts, an error's status, all against a stand-in
// answers: POST /v1/chat/completions 200 {"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}
// answers: POST /streamed/chat/completions 200 data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\ndata: {"id":"1","choices":[{"index":0,"delta":{"content":"lo"}}]}\n\ndata: [DONE]\n\n
// answers: POST /v1/files 200 {"id":"file-1","object":"file"}
// answers: GET /v1/models/absent 404 {"error":{"message":"There is no such model.","code":"model_not_found"}}
import OpenAI, { toFile } from 'openai';

export default [
  async ({ configuration: { service } }) => {
    const client = new OpenAI({ apiKey: 'key', baseURL: `${service}/v1`, maxRetries: 0 });
    const question = { model: 'model', messages: [{ role: 'user', content: 'Hi' }] };
    same((await client.chat.completions.create(question)).choices[0].message.content, 'Hello');
    const streaming = new OpenAI({ apiKey: 'key', baseURL: `${service}/streamed`, maxRetries: 0 });
    let text = '';
    for await (const { choices } of await streaming.chat.completions.create({ ...question, stream: true })) text += choices[0].delta.content;
    same(text, 'Hello');
    same((await client.files.create({ file: await toFile(Buffer.from('content'), 'a.txt'), purpose: 'assistants' })).id, 'file-1');
    const error = await failure(() => client.models.retrieve('absent'));
    same([error.status, error.code], [404, 'model_not_found']);
    const [asked, , sent] = await seen(service);
    same([asked.headers.authorization, JSON.parse(asked.body)], ['Bearer key', question]);
    same([sent.headers['content-type'].startsWith('multipart/form-data'), sent.body.includes('content')], [true, true]);
  },
];
