// package: npm:@opengovsg/formsg-sdk@0.15
// behind: formsg
// does: encrypts a form's answers and decrypts them, a forged signature
import formsg from '@opengovsg/formsg-sdk';

export default [
  () => {
    const { crypto, webhooks } = formsg({ mode: 'test' });
    const { publicKey, secretKey } = crypto.generate();
    const answers = [{ _id: '5db00000000000000000000a', question: 'Name', fieldType: 'textfield', answer: 'Amina' }];
    const encryptedContent = crypto.encrypt(answers, publicKey);
    same(crypto.decrypt(secretKey, { encryptedContent, version: 1 }).responses, answers);
    let refused;
    try {
      webhooks.authenticate('t=1,s=1,f=1,v1=forged', 'https://example.org');
    } catch (error) {
      refused = error;
    }
    same(refused instanceof Error, true);
  },
];
