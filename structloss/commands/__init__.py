"""The commands of `structloss`, a file each: `add(commands)` adds its parser; heavy parts load when it runs."""
