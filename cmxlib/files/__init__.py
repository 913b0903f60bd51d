"""Files: images, arrays and checkpoints on disk, encrypted and decrypted from the command line.

record        what stands beside whatever was encrypted: the cipher, the key's fingerprint, and how
pictures      image files, one by one, and which kinds are refused
arrays        .npy files
folders       many files at once: workers, what is done already, what failed
commands      the command line of this room

Every file is written at one stroke; nothing is overwritten unless asked for. What a file holds is asked where it is
read: a ValueError or OSError names the file, what is wrong with it and the way out. Pillow is imported
where it is used; the extra `files` brings it.
"""
