"""Files: images, arrays and models on disk, encrypted and decrypted from the command line.

record        what goes with whatever was encrypted: the cipher, the key's fingerprint, and how
pictures      image files one by one, and which kinds are refused; arrays: .npy files
folders       many files at once: workers, what is done already, what failed
models        encrypt and decrypt a model's file, and verify
checkpoints   safetensors and .pt: the embedding's tensors are exchanged, all else is copied
graphs        the same of ONNX
commands      the command line of this room

Every file is written at one stroke; nothing is overwritten unless asked for, and a link is replaced itself, not what it
points to. What a file holds is asked where it is read: a ValueError or OSError names the file, what is wrong with it
and the way out. Pillow, safetensors and onnx are imported where they are used; the extras `files` and `onnx` bring
them.
"""
