"""What a package is: releases, the .run file, the vendor tree."""
