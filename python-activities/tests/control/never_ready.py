"""A child ahead whose import takes for ever."""

import time

if __name__ == "__main__":
    time.sleep(3600)
