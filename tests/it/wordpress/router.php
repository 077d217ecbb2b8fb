<?php
// Does for PHP's own server what rewrite rules do elsewhere: what is no file goes to index.php, with the target as it was
// sent in REQUEST_URI, and what follows /index.php in PATH_INFO.

$path = rawurldecode(explode('?', $_SERVER['REQUEST_URI'], 2)[0]);
$merged = preg_replace('#/+#', '/', $path);
if ($merged !== '/' && strpos($merged, '/index.php') !== 0 && is_file(__DIR__ . '/site' . $merged)) {
    return false;
}
$_SERVER['SCRIPT_NAME'] = '/index.php';
$_SERVER['SCRIPT_FILENAME'] = __DIR__ . '/site/index.php';
unset($_SERVER['PATH_INFO']);
if (strpos($merged, '/index.php/') === 0) {
    $_SERVER['PATH_INFO'] = substr($merged, strlen('/index.php'));
}
$_SERVER['PHP_SELF'] = '/index.php' . ($_SERVER['PATH_INFO'] ?? '');
chdir(__DIR__ . '/site');
require __DIR__ . '/site/index.php';
