// Names for modules and chunks instead of numbers: webpack derives some of the numbers from absolute paths, and the
// committed build has to come out the same wherever the repository lies.
module.exports = { optimization: { moduleIds: 'named', chunkIds: 'named' } };
