"""People of capsules: any number of images with exact joints, without a file to download."""
