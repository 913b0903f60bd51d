"""The core: secret keys, ciphers, and models that undo a cipher in their first layer.

keys, keyfile   SecretKey, its draws, and its file
patch           PatchCipher: one keyed affine map of every block of an image
model           encrypt_model and decrypt_model
embedding       which layer is the patch embedding; probe runs the model to check what the layer sees
use             Encrypt, a transform, and verify, a report
near            nearly right keys
blocks          BlockCipher: patches change places too; tokens: the position embeddings that undo it
norm            mean and std that a model says itself
position, bits  repairs of the patch cipher
conventional    the methods that encrypt before training: LE to SUB
checks          what is asked of arguments, once for each kind of thing

**A cipher** is an object with ``encrypt(images)`` and ``decrypt(images)``, images (N, C, H, W) or (C, H, W). With
``matrix(patch_size)``, the float64 pair A (m, m) and b (m,) of x' = A x + b for a patch x in channel, row, column order
with values in [0, 1], it folds: encrypt_model takes it. It may say its ``channels`` (3 unless it does) and the
``block_size`` that patches must be a multiple of (1 unless it does).

**To add one**, write a module here with such a class; draw all that is secret from ``SecretKey`` (permutation, bits,
half, orthogonal), each with a purpose of its own, so that no two ciphers share a draw; ask ``check_key`` and ``checks``
first; and pin its result in a test, for whoever stored encrypted images must be able to decrypt them.
"""
