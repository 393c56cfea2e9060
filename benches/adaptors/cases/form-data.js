// package: npm:form-data@4
// behind: mailgun; inside axios, request, superagent and openai
// does: a field and a file, sent by node:http
import FormData from 'form-data';

export default [
  async ({ configuration: { http } }) => {
    const form = new FormData();
    form.append('name', 'Amina');
    form.append('file', Buffer.from('content'), { filename: 'a.txt', contentType: 'text/plain' });
    const response = await new Promise((resolve, reject) =>
      form.submit(`${http}/echo`, (error, response) => (error ? reject(error) : resolve(response))));
    const chunks = [];
    for await (const chunk of response) chunks.push(chunk);
    const { method, headers, body } = JSON.parse(Buffer.concat(chunks).toString());
    same([method, headers['content-type']], ['POST', `multipart/form-data; boundary=${form.getBoundary()}`]);
    same(['name="name"', 'Amina', 'filename="a.txt"', 'content'].filter(part => !body.includes(part)), []);
  },
];
