// package: npm:jimp@1
// behind: image-utils
// does: draws an image, scales it, writes it as PNG, JPEG and GIF and reads each back; a damaged one
import { Jimp } from 'jimp';

export default [
  async () => {
    const image = new Jimp({ width: 40, height: 20, color: 0xff0000ff }).resize({ w: 20 }).greyscale();
    for (const mime of ['image/png', 'image/jpeg', 'image/gif']) {
      const read = await Jimp.read(await image.getBuffer(mime));
      same([read.width, read.height, read.mime], [20, 10, mime]);
    }
    same((await failure(() => Jimp.read(Buffer.from('no image')))) instanceof Error, true);
  },
];
