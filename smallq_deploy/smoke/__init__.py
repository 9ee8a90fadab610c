"""Does the installed operator compute? aclnn through ctypes in a fresh process."""
