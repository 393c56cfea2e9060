// package: npm:md5@2
// behind: mailchimp, vtiger
// does: digests of text and bytes
import md5 from 'md5';

export default [
  () => {
    same(md5('grüße'), md5(Buffer.from('grüße')));
    same(md5('nurse@example.org'), 'fcd034ea12e0b2d4603ab525d7bfdc7b');
  },
];
