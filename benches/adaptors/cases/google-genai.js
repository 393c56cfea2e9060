// package: npm:@google/genai@1
// behind: gemini
// does: generates content, an error's status, both against a stand-in
// answers: POST /v1beta/models/model:generateContent 200 {"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]}}]}
// answers: POST /v1beta/models/absent:generateContent 404 {"error":{"code":404,"message":"There is no such model.","status":"NOT_FOUND"}}
import { GoogleGenAI } from '@google/genai';

export default [
  async ({ configuration: { service } }) => {
    const { models } = new GoogleGenAI({ apiKey: 'key', httpOptions: { baseUrl: service } });
    same((await models.generateContent({ model: 'model', contents: 'Hi' })).text, 'Hello');
    same((await failure(() => models.generateContent({ model: 'absent', contents: 'Hi' }))).status, 404);
    const [asked] = await seen(service);
    same([asked.headers['x-goog-api-key'], JSON.parse(asked.body).contents[0].parts], ['key', [{ text: 'Hi' }]]);
  },
];
