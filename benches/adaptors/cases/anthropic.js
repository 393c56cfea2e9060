// package: npm:@anthropic-ai/sdk@0.106
// behind: claude
// does: a message, a stream of events, an error's status, all against a stand-in
// answers: POST /v1/messages 200 {"id":"1","type":"message","role":"assistant","content":[{"type":"text","text":"Hello"}],"usage":{"input_tokens":1,"output_tokens":1}}
// answers: POST /streamed/v1/messages 200 event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n
// answers: GET /v1/models/absent 404 {"type":"error","error":{"type":"not_found_error","message":"There is no such model."}}
import Anthropic from '@anthropic-ai/sdk';

export default [
  async ({ configuration: { service } }) => {
    const client = new Anthropic({ apiKey: 'key', baseURL: service, maxRetries: 0 });
    const question = { model: 'model', max_tokens: 10, messages: [{ role: 'user', content: 'Hi' }] };
    same((await client.messages.create(question)).content[0].text, 'Hello');
    const streaming = new Anthropic({ apiKey: 'key', baseURL: `${service}/streamed`, maxRetries: 0 });
    let text = '';
    for await (const event of await streaming.messages.create({ ...question, stream: true })) text += event.delta?.text ?? '';
    same(text, 'Hello');
    same((await failure(() => client.models.retrieve('absent'))).status, 404);
    const [asked] = await seen(service);
    same([asked.headers['x-api-key'], JSON.parse(asked.body)], ['key', question]);
  },
];
