# The package bridge-utils is installed.
