<?php
// Installs WordPress into an empty database, with pretty permalinks and users, and prints what tests need to know as
// JSON: the users' ids, and what a browser of the administrator's would send.

define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = 'shop.example.com';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['REQUEST_METHOD'] = 'GET';

/** It would send a mail. */
function wp_new_blog_notification(): void
{
}

require $argv[1] . '/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';

// Nothing here calls anybody.
add_filter('pre_http_request', static function (): WP_Error {
    return new WP_Error('offline', 'These tests call nobody.');
});
wp_install('Shop', 'admin', 'admin@example.com', true, '', 'a password that nobody uses');
// By http, so that links say https only where WordPress has seen it.
update_option('siteurl', 'http://shop.example.com');
update_option('home', 'http://shop.example.com');

global $wp_rewrite, $wpdb;
$wp_rewrite->set_permalink_structure('/%postname%/');
$wp_rewrite->flush_rules(false);

get_role('administrator')->add_cap('manage_woocommerce');
$editor = get_role('editor')->capabilities;
add_role('shop_manager', 'Shop manager', $editor + ['manage_woocommerce' => true]);
$users = ['admin' => 1];
foreach (['svc-accounting' => 'shop_manager', 'svc-editor' => 'editor', 'svc-reader' => 'subscriber'] as $login => $role) {
    $user = ['user_login' => $login, 'user_pass' => wp_generate_password(), 'role' => $role];
    $users[$login] = wp_insert_user($user + ['user_email' => "$login@example.com"]);
}

$wpdb->query("CREATE TABLE {$wpdb->prefix}wkwp_wallets (id INT PRIMARY KEY, balance INT NOT NULL)");
$wpdb->query("INSERT INTO {$wpdb->prefix}wkwp_wallets VALUES (1, 100), (2, 200), (3, 300)");

$expires = time() + DAY_IN_SECONDS;
$session = WP_Session_Tokens::get_instance(1)->create($expires);
$cookie = wp_generate_auth_cookie(1, $expires, 'logged_in', $session);
$_COOKIE[LOGGED_IN_COOKIE] = $cookie;
wp_set_current_user(1);
echo json_encode([
    'version' => $GLOBALS['wp_version'],
    'users' => $users,
    'cookie' => LOGGED_IN_COOKIE . '=' . rawurlencode($cookie) . '; ' . AUTH_COOKIE . '='
        . rawurlencode(wp_generate_auth_cookie(1, $expires, 'auth', $session)),
    'nonce' => wp_create_nonce('wp_rest'),
]), "\n";
